"""``ice-punch token``: a token for a server that asks for one."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from ice_punch.cli.secrets_file import read_secret
from ice_punch.errors import InvalidConfiguration
from signaling.errors import InvalidKey, InvalidLink
from signaling.link import Link
from signaling.tokens import PERMISSIONS, TokenKey, mint_token


@dataclass(frozen=True, slots=True)
class TokenArguments:
    key: str
    rooms: tuple[str, ...]
    links: tuple[str, ...]
    ttl: float
    permissions: tuple[str, ...]
    relay: bool
    subject: str
    max_peers: int | None


def read_token_key(path: str, switch: str) -> TokenKey:
    """Raises InvalidConfiguration."""
    try:
        return TokenKey.parse(read_secret(path, switch))
    except InvalidKey as error:
        raise InvalidConfiguration(f"{switch} {path}: {error}") from None


def run_token(arguments: TokenArguments, *, as_json: bool) -> int:
    key = read_token_key(arguments.key, "--key")
    permissions = arguments.permissions or PERMISSIONS
    rooms = (*arguments.rooms, *map(_room_of, arguments.links))
    if not rooms:
        raise InvalidConfiguration("--room or --link says which rooms the token opens")
    now = time.time()
    try:
        token = mint_token(
            key,
            rooms,
            now=now,
            ttl=arguments.ttl,
            permissions=permissions,
            relay=arguments.relay,
            subject=arguments.subject,
            max_peers=arguments.max_peers,
        )
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from None
    if as_json:
        print_line(
            json.dumps(
                {
                    "token": token,
                    "kid": key.id,
                    "rooms": list(rooms),
                    "permissions": list(dict.fromkeys(permissions)),
                    "relay": arguments.relay,
                    "expires_at": int(now + arguments.ttl),
                }
            )
        )
    else:
        print_line(token)
    return 0


def _room_of(link: str) -> str:
    """The name by which the server knows the room of a link; its secret is of no account."""
    try:
        return Link.parse(link if "#" in link else f"{link}#{_ANY_SECRET}").wire_room
    except InvalidLink as error:
        raise InvalidConfiguration(f"--link: {error}") from None


_ANY_SECRET = "A" * 22


def print_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
