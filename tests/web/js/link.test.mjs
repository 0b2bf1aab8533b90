import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBase64url, toBase64url } from "../../../signaling/web/base64url.js";
import { createLink, parseLink } from "../../../signaling/web/link.js";

const ROOM = "r".repeat(22);
const SECRET = "AAAAAAAAAAAAAAAAAAAAAA";

test("a link is read and written as it was", () => {
  for (const server of ["https://signal.example", "http://10.0.0.1:8080", "http://[::1]:8080"]) {
    const text = `${server}/j/${ROOM}#${SECRET}`;
    const link = parseLink(` ${text}\n`);
    assert.equal(String(link), text);
    assert.equal(link.withoutSecret, `${server}/j/${ROOM}`);
    assert.equal(link.websocketUrl, `${server.replace("http", "ws")}/v1/ws/fa24`);
  }
});

test("a new link has a room and a secret of 128 bits, and is read again", () => {
  const [one, two] = [createLink("http://h:1/"), createLink("http://h:1/")];
  assert.notEqual(one.room, two.room);
  assert.equal(one.secret.length, 16);
  assert.deepEqual(parseLink(String(one)).secret, one.secret);
});

const WRONG = [
  ["", "empty"],
  ["nonsense", "not a URL"],
  [`ftp://h/j/${ROOM}#${SECRET}`, "must begin with http"],
  [`http://me:you@h/j/${ROOM}#${SECRET}`, "user name"],
  [`http://h/x/${ROOM}#${SECRET}`, "should read"],
  [`http://h/#${SECRET}`, "should read"],
  [`http://h/j/${ROOM}?a=b#${SECRET}`, "query"],
  [`http://h/j/short#${SECRET}`, "room is cut off"],
  [`http://h/j/${ROOM}`, "no secret"],
  [`http://h/j/${ROOM}#`, "no secret"],
  [`http://h/j/${ROOM}#AAAA`, "cut off"],
  [`http://h/j/${ROOM}#${SECRET}%20`, "garbled"],
  [`http://h/j/${ROOM}#AAAAAAAAAAAAAAAAAAAAAB`, "garbled"],
  [`http://h/j/${ROOM}#${"A".repeat(90)}`, "garbled"],
  [`http://h/j/${ROOM}#2.${SECRET}`, "format 2"],
];

test("what is no link is told in one sentence that does not show the secret", () => {
  for (const [text, words] of WRONG) {
    assert.throws(
      () => parseLink(text),
      (error) => {
        assert.equal(error.code, "invalid-link");
        assert.match(error.message, new RegExp(words));
        assert.match(error.message, /\.$/);
        assert.ok(!error.message.includes("AAAA"));
        return true;
      },
      text,
    );
  }
});

test("base64url has one form for every sequence of bytes", () => {
  for (let length = 0; length < 70; length++) {
    const bytes = crypto.getRandomValues(new Uint8Array(length));
    const text = toBase64url(bytes);
    assert.equal(text, Buffer.from(bytes).toString("base64url"));
    assert.deepEqual(fromBase64url(text), bytes);
  }
  for (const text of ["A", "AB", "AA==", "A A", "+/+/", "ä"]) assert.throws(() => fromBase64url(text));
});
