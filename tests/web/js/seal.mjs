// Opens and seals as the page does; the other end of a test in Python. One JSON object a line.
import { createInterface } from "node:readline";
import { fromBase64url } from "../../../signaling/web/base64url.js";
import { parseLink } from "../../../signaling/web/link.js";
import { Sealer } from "../../../signaling/web/sealing.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, room, place, seal, open, link } = JSON.parse(line);
  let answer;
  try {
    if (link !== undefined) answer = { wireRoom: parseLink(link).wireRoom };
    else {
      const sealer = await Sealer.of(fromBase64url(secret), room);
      answer = seal === undefined ? { opened: await sealer.open(open, place) } : { sealed: await sealer.seal(seal, place) };
    }
  } catch (error) {
    answer = { error: error.constructor.name };
  }
  console.log(JSON.stringify(answer));
}
