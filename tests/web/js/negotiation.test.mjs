import assert from "node:assert/strict";
import { test } from "node:test";
import { MAX_WAITING, Negotiation } from "../../../signaling/web/negotiation.js";

test("the larger order offers, the other one asks", () => {
  assert.deepEqual(new Negotiation(true).begin(), { kind: "offer", generation: 0 });
  assert.deepEqual(new Negotiation(false).begin(), { kind: "restart", generation: 0 });
});

test("a whole session: an offer, its answer, a restart from either side", () => {
  const offerer = new Negotiation(true);
  const answerer = new Negotiation(false);
  offerer.begin();
  assert.ok(answerer.receiveOffer(0));
  answerer.answered();
  assert.ok(offerer.receiveAnswer(0));
  assert.deepEqual(answerer.restart(1), { kind: "restart", generation: 1 });
  assert.equal(offerer.receiveRestart(1, 1), 1);
  assert.ok(answerer.receiveOffer(1));
  answerer.answered();
  assert.ok(offerer.receiveAnswer(1));
  assert.deepEqual(offerer.restart(3), { kind: "offer", generation: 2 });
  assert.ok(offerer.dropped + answerer.dropped === 0);
});

test("offers and answers out of turn, old or twice are dropped", () => {
  const offerer = new Negotiation(true);
  offerer.begin();
  assert.ok(!offerer.receiveOffer(5));
  assert.ok(!offerer.receiveAnswer(1));
  assert.ok(offerer.receiveAnswer(0));
  assert.ok(!offerer.receiveAnswer(0));
  const answerer = new Negotiation(false);
  assert.ok(answerer.receiveOffer(3));
  assert.ok(!answerer.receiveOffer(3));
  assert.ok(!answerer.receiveAnswer(3));
  assert.equal(offerer.dropped + answerer.dropped, 5);
});

test("restarts are a second apart, and none begins while an offer waits for its answer", () => {
  const offerer = new Negotiation(true);
  offerer.begin();
  assert.equal(offerer.restart(100), null);
  offerer.receiveAnswer(0);
  assert.ok(offerer.restart(100));
  assert.equal(offerer.restart(119), null);
  assert.deepEqual(offerer.restart(120), { kind: "offer", generation: 2 });
  offerer.receiveAnswer(2);
  assert.equal(offerer.restart(120.5), null);
  assert.ok(offerer.restart(121));
});

test("a wish for a generation that exists is dropped", () => {
  const offerer = new Negotiation(true);
  assert.equal(offerer.receiveRestart(0, 0), 0);
  offerer.receiveAnswer(0);
  assert.equal(offerer.receiveRestart(0, 9), null);
  assert.equal(new Negotiation(false).receiveRestart(0, 0), null);
});

test("candidates wait for their description, are dropped when old, and wait 15 s at most", () => {
  const negotiation = new Negotiation(false);
  const fragment = (ufrag) => ({ ufrag });
  assert.ok(!negotiation.receiveCandidates(0, fragment("a"), 0));
  assert.ok(!negotiation.receiveCandidates(1, fragment("b"), 1));
  negotiation.receiveOffer(0);
  assert.deepEqual(negotiation.descriptionSet(0, "a", 2), [{ ufrag: "a" }]);
  assert.ok(negotiation.receiveCandidates(0, fragment("a"), 3));
  negotiation.receiveOffer(1);
  assert.deepEqual(negotiation.descriptionSet(1, "b", 4), [{ ufrag: "b" }]);
  assert.ok(!negotiation.receiveCandidates(0, fragment("a"), 5));
  assert.ok(!negotiation.receiveCandidates(2, fragment("c"), 6));
  negotiation.receiveOffer(2);
  assert.deepEqual(negotiation.descriptionSet(2, "c", 21), []);
  assert.equal(negotiation.dropped, 2);
});

test("what waits is bounded", () => {
  const negotiation = new Negotiation(false);
  for (let i = 0; i < 1000; i++) negotiation.receiveCandidates(0, { ufrag: "a", i }, 0);
  const due = negotiation.descriptionSet(0, "a", 1);
  assert.equal(due.length, MAX_WAITING);
  assert.equal(due.at(-1).i, 999);
});
