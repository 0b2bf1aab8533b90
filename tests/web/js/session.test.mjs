import assert from "node:assert/strict";
import { test } from "node:test";
import { Session, backoff, judge } from "../../../signaling/web/session.js";

const WELCOME = {
  type: "welcome", v: 1, self: "me", order: 2, sid: "s", key: "k", ping: 25, window: 30,
  peers: [{ id: "you", order: 1 }], limits: {}, ice: { servers: [{ urls: ["stun:h"] }] }, you: {},
};
const SIGNAL = { to: "you", link: "l", gen: 0, kind: "offer", data: "d" };

const frames = (session) => session.framesToSend().map((frame) => JSON.parse(frame));
const hear = (session, message, now = 0) => session.receive(JSON.stringify(message), now);

function welcomed() {
  const session = new Session("room", { meta: "m" });
  session.connectionMade(0);
  frames(session);
  hear(session, WELCOME, 0.1);
  return session;
}

test("hello comes first, and a welcome begins the session", () => {
  const session = new Session("room", { meta: "m", maxPeers: 2, token: "t" });
  session.connectionMade(0);
  assert.deepEqual(frames(session), [
    { type: "hello", v: 1, room: "room", token: "t", meta: "m", max_peers: 2 },
  ]);
  const [event] = hear(session, WELCOME, 0.25);
  assert.equal(event.type, "welcome");
  assert.deepEqual(event.iceServers, [{ urls: ["stun:h"] }]);
  assert.equal(session.roundTrip, 0.25);
  assert.ok(session.established);
});

test("signals are numbered, and what is not confirmed is sent again after a resume", () => {
  const session = welcomed();
  for (let i = 0; i < 3; i++) session.send(SIGNAL, 1);
  assert.deepEqual(frames(session).map((frame) => frame.id), [1, 2, 3]);
  hear(session, { type: "ack", id: 1, status: "delivered" }, 1);
  session.connectionLost();
  session.send(SIGNAL, 2);
  session.connectionMade(3);
  assert.deepEqual(frames(session)[0].resume, { sid: "s", key: "k", seq: 0 });
  hear(session, { type: "resumed", seq: 0, rx: 2, peers: [] }, 3);
  assert.deepEqual(frames(session).map((frame) => frame.id), [3, 4]);
});

test("what comes twice is taken once, and a gap ends the connection", () => {
  const session = welcomed();
  const signal = { type: "signal", seq: 1, from: "you", link: "l", gen: 0, kind: "offer", data: "" };
  assert.equal(hear(session, signal).length, 1);
  assert.equal(hear(session, signal).length, 0);
  assert.equal(session.fault, null);
  assert.equal(hear(session, { ...signal, seq: 3 }).length, 0);
  assert.match(session.fault, /frame 3 came after 1/);
});

test("every 16 numbered frames are acknowledged, and the rest with the ping", () => {
  const session = welcomed();
  for (let seq = 1; seq <= 17; seq++) {
    hear(session, { type: "peer", seq, event: "join", id: `p${seq}`, order: seq }, 1);
  }
  assert.deepEqual(frames(session), [{ type: "ack", seq: 16 }]);
  session.handleTimer(26);
  assert.deepEqual(frames(session), [{ type: "ack", seq: 17 }, { type: "ping", n: 1 }]);
});

test("a server that is silent for 62.5 s, or 10 s over a signal, is given up", () => {
  const idle = welcomed();
  idle.handleTimer(62.5);
  assert.equal(idle.fault, null);
  idle.handleTimer(62.7);
  assert.match(idle.fault, /silent/);
  const waiting = welcomed();
  waiting.send(SIGNAL, 5);
  waiting.handleTimer(14);
  assert.equal(waiting.fault, null);
  waiting.handleTimer(15);
  assert.match(waiting.fault, /silent/);
});

test("at most 64 signals are unconfirmed; the others wait their turn", () => {
  const session = welcomed();
  for (let i = 0; i < 70; i++) session.send(SIGNAL, 1);
  assert.equal(frames(session).length, 64);
  hear(session, { type: "ack", id: 5, status: "delivered" }, 1);
  assert.deepEqual(frames(session).map((frame) => frame.id), [65, 66, 67, 68, 69]);
});

test("a welcome in place of a resume is a new identity: nothing is carried over", () => {
  const session = welcomed();
  session.send(SIGNAL, 1);
  session.connectionLost();
  session.connectionMade(2);
  frames(session);
  hear(session, { ...WELCOME, self: "other" }, 2);
  assert.deepEqual(frames(session), []);
  session.send(SIGNAL, 3);
  assert.equal(frames(session)[0].id, 1);
});

test("frames that are nonsense end the connection, unknown types do not", () => {
  for (const text of ["", "[]", "1", "{", '{"type":1}', "null"]) {
    const session = welcomed();
    session.receive(text, 1);
    assert.match(session.fault, /broke the protocol/, text);
  }
  const session = welcomed();
  assert.deepEqual(hear(session, { type: "news", seq: 9 }), []);
  assert.equal(session.fault, null);
});

test("close codes say whether to come back", () => {
  for (const code of [4000, 4001, 4002, 4003, 4004, 4005, 4499, 1001, 1006, 1011, 1012, 1013]) {
    assert.equal(judge(code), "again", String(code));
  }
  for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4500, 4501, 4504, 4507, 4999]) {
    assert.equal(judge(code), "never", String(code));
  }
});

test("the wait is full jitter from 0.5 s to 30 s, after a drain what that says", () => {
  assert.deepEqual([0, 1, 2, 3].map((n) => backoff(n, 1)), [0.5, 1, 2, 4]);
  assert.equal(backoff(50, 1), 30);
  assert.equal(backoff(50, 0), 0);
  assert.equal(backoff(0, 0.5, { jitter: 10 }), 5);
  assert.equal(backoff(0, 1, { jitter: -5 }), 0);
  assert.equal(backoff(2, 1, { jitter: 0 }), 2);
  assert.equal(backoff(2, 1, { jitter: 10 }), 10);
  assert.equal(backoff(0, 0, { retryAfter: -7 }), 0);
  assert.equal(backoff(0, 0, { retryAfter: 7 }), 7);
});
