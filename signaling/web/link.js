// The link one peer gives another: docs/reference/signaling-protocol.md, "Links and rooms".

import { fromBase64url, randomBytes, toBase64url } from "./base64url.js";
import { IcePunchError } from "./errors.js";
import { Sha256 } from "./sha256.js";

const SOCKET_PATH = "/v1/ws";
const SECRET_BYTES = 16;
const SECRET_MAX_BYTES = 64;

const encoder = new TextEncoder();

export class Link {
  /** `server` is the `http(s)` origin, `secret` the bytes after `#`. */
  constructor(server, room, secret) {
    this.server = server;
    this.room = room;
    this.secret = secret;
  }

  /** The name of the room as the server hears it: a hash, from which nobody can tell the link. */
  get wireRoom() {
    const hash = new Sha256().update(encoder.encode(`icepunch.v1 room\0${this.room}`));
    return toBase64url(hash.digest());
  }

  /**
   * A proxy brings all peers of a room to the same process by the hash at the end. Whoever knows the
   * room's name may enter, and access logs show paths: 16 bits of a hash of it tell nothing.
   */
  get websocketUrl() {
    const hash = new Sha256().update(encoder.encode(`icepunch.v1 path\0${this.wireRoom}`));
    const digits = Array.from(hash.digest().subarray(0, 2), (byte) => byte.toString(16).padStart(2, "0"));
    return `${this.server.replace(/^http/, "ws")}${SOCKET_PATH}/${digits.join("")}`;
  }

  /** Good for logs of those who may enter the room, useless to join. */
  get withoutSecret() {
    return `${this.server}/j/${this.room}`;
  }

  toString() {
    return `${this.withoutSecret}#${toBase64url(this.secret)}`;
  }
}

/** The link in `text`; throws an `IcePunchError` whose text never shows the secret. */
export function parseLink(text) {
  text = String(text).trim();
  if (!text) throw invalid("The link is empty.");
  const hash = text.indexOf("#");
  const address = hash < 0 ? text : text.slice(0, hash);
  let url;
  try {
    url = new URL(address);
  } catch {
    throw invalid("The link is not a URL.");
  }
  if (!["http:", "https:"].includes(url.protocol)) {
    throw invalid("This is not an ice-punch link: it must begin with http:// or https://.");
  }
  if (url.username || url.password) {
    throw invalid("This is not an ice-punch link: a user name has no place in it.");
  }
  const match = /^\/j\/([^/]+)$/.exec(url.pathname);
  if (!match) {
    throw invalid("This is not an ice-punch link: it should read http(s)://host/j/<room>#<secret>.");
  }
  if (url.search) throw invalid("The link has a query (?...), which a link never has.");
  if (!/^[A-Za-z0-9_-]{22,128}$/.test(match[1])) {
    throw invalid("The link's room is cut off or garbled: copy the whole link.");
  }
  return new Link(url.origin, match[1], secretOf(hash < 0 ? "" : text.slice(hash + 1)));
}

/** A link to a new room on the server at `server`, an `http(s)` URL, with a new secret. */
export function createLink(server) {
  let url;
  try {
    url = new URL(server);
  } catch {
    throw invalid("The server is not a URL.");
  }
  if (!["http:", "https:"].includes(url.protocol)) {
    throw invalid("A signaling server's URL begins with http:// or https://.");
  }
  return new Link(url.origin, toBase64url(randomBytes(16)), randomBytes(SECRET_BYTES));
}

function secretOf(fragment) {
  if (!fragment) throw invalid("The link has no secret: the part after # is missing.");
  const format = /^(\d+)\./.exec(fragment);
  if (format) {
    throw invalid(`The link is of format ${format[1].slice(0, 8)}, which this page does not know.`);
  }
  let secret;
  try {
    secret = fromBase64url(fragment);
  } catch {
    secret = new Uint8Array(SECRET_MAX_BYTES + 1);
  }
  if (secret.length > SECRET_MAX_BYTES) {
    throw invalid("The link's secret (after #) is garbled: copy the whole link.");
  }
  if (secret.length < SECRET_BYTES) {
    throw invalid("The link's secret (after #) is cut off: copy the whole link.");
  }
  return secret;
}

function invalid(sentence) {
  return new IcePunchError("invalid-link", sentence);
}
