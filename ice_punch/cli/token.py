"""``ice-punch token``: a token for a server that asks for one."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from ice_punch.cli.secrets_file import read_secret
from ice_punch.errors import InvalidConfiguration
from signaling.errors import InvalidKey
from signaling.tokens import PERMISSIONS, TokenKey, mint_token


@dataclass(frozen=True, slots=True)
class TokenArguments:
    key: str
    rooms: tuple[str, ...]
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
    now = time.time()
    try:
        token = mint_token(
            key,
            arguments.rooms,
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
                    "rooms": list(arguments.rooms),
                    "permissions": list(dict.fromkeys(permissions)),
                    "relay": arguments.relay,
                    "expires_at": int(now + arguments.ttl),
                }
            )
        )
    else:
        print_line(token)
    return 0


def print_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
