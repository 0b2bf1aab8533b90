/**
 * What went wrong, in one sentence for people (`message`) and one word for programs (`code`):
 *
 * `invalid-link`, `no-webrtc`, `insecure-page`, `unreachable`, `token`, `refused`, `used-up`,
 * `room-full`, `nobody-there`, `wrong-secret`, `peer-refused`, `peer-left`, `no-path`, `lost`, `closed`,
 * `file-refused`, `file-broken`, `too-large`.
 */
export class IcePunchError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "IcePunchError";
    this.code = code;
  }
}

/** Text of a remote side, made fit to be shown: one line, no control characters, no other direction
 * of writing than its letters have, bounded. Joiners stay: emoji and Persian need them. */
export function shown(text, length = 200) {
  return String(text ?? "")
    .slice(0, length)
    .replace(/[\p{Cc}\p{Cs}\p{Co}\p{Cn}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/gu, "?");
}
