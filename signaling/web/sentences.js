// Why a session ended, or never began, as people read it.

import { IcePunchError, shown } from "./errors.js";

export const NO_SCTP =
  "The other side does not speak WebRTC data channels: there, pip install 'ice-punch[webrtc]'.";
export const NEEDS_SCTP = "a browser needs WebRTC data channels: pip install 'ice-punch[webrtc]'";
export const NO_PATH =
  "No path to the other side was found: the networks let nothing through, and no relay helped.";
export const NO_DTLS =
  "The encryption with the other side failed: a certificate is not the one that was described.";
export const WRONG_SECRET =
  "The secret in the link (the part after #) is not the other side's: copy the whole link again.";

export function notUnderstood(error) {
  return `This browser could not use what the other side described (${shown(error?.message ?? error)}).`;
}

export function endedThere() {
  return new IcePunchError("closed", "The other side ended the connection.");
}

export function closedHere() {
  return new IcePunchError("closed", "The connection is closed.");
}
