/**
 * What went wrong, in one sentence for people (`message`) and one word for programs (`code`):
 *
 * `invalid-link`, `no-webrtc`, `insecure-page`, `unreachable`, `refused`, `room-full`,
 * `nobody-there`, `wrong-secret`, `peer-refused`, `peer-left`, `no-path`, `lost`, `closed`,
 * `file-refused`, `file-broken`, `too-large`.
 */
export class IcePunchError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "IcePunchError";
    this.code = code;
  }
}

/** Text of a remote side, made fit to be shown: one line, no control characters, bounded. */
export function shown(text, length = 200) {
  return String(text ?? "")
    .slice(0, length)
    .replace(/[\p{C}\u2028\u2029]/gu, "?");
}
