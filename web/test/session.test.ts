import assert from "node:assert/strict";
import { test } from "node:test";
import { SaccadeError } from "../sdk/errors.js";
import type { Reconnected } from "../sdk/session.js";
import type { ErrorMessage, IceServer, SessionEvent, SessionResult } from "../sdk/wire.js";
import { answer, connected, EVENTS, FakeTrack, fakeStream, OPTIONS, RESULT, settle, type Tried, tryOut } from "./fakes.js";

const full: ErrorMessage = { type: "error", code: "capacity", message: "All places are taken.", fatal: true, retry_after_ms: 8_000 };
const refusal: ErrorMessage = { type: "error", code: "bad_options", message: "not built yet", fatal: false };

test("a session connects: welcome, offer, answer, media", async () => {
  const tried = await tryOut({ token: "jwt", options: { model: "ppe-nano" } });
  const { environment, session, started, states } = tried;
  assert.equal(environment.socket.url, "wss://vision.example/v1/signal");
  assert.equal(environment.socket.protocol, "saccade.v1");
  assert.equal(environment.peers.length, 0);
  environment.socket.welcome();
  await settle();
  assert.deepEqual(environment.socket.of("auth"), [{ type: "auth", token: "jwt" }]);
  const [offer] = environment.socket.of("offer");
  assert.deepEqual(offer, { type: "offer", sdp: "offer 1", options: { model: "ppe-nano" } });
  assert.equal(environment.peer.configuration.iceServers?.length, 2);
  assert.equal(environment.peer.transceivers[0]?.init.direction, "sendrecv");
  const [results] = environment.peer.channels;
  assert.deepEqual([results?.label, results?.init], ["results", { ordered: false, maxRetransmits: 0 }]);
  await answer(tried);
  await started;
  assert.equal(session.state, "connected");
  assert.equal(session.sessionId, "s1");
  assert.deepEqual(session.options, OPTIONS);
  assert.deepEqual(states.map(({ state }) => state), ["connecting", "connected"]);
});

test("no candidate overtakes its offer, and the last one is null", async () => {
  const { environment } = await connected();
  environment.peer.gather("candidate:late");
  environment.peer.gather("");
  environment.peer.gather(null);
  const kinds = environment.socket.sent.map((message) =>
    message.type === "candidate" ? (message.candidate?.candidate ?? null) : message.type,
  );
  assert.deepEqual(kinds, ["offer", "candidate:early 1", "candidate:late", null]);
});

test("remote candidates wait for their answer, and are bounded", async () => {
  const tried = await tryOut();
  const { environment } = tried;
  environment.socket.welcome();
  await settle();
  for (let n = 0; n < 100; n += 1) environment.socket.say({ type: "candidate", candidate: { candidate: `candidate:${n}`, sdpMid: "0" } });
  environment.socket.say({ type: "candidate", candidate: null });
  assert.equal(environment.peer.added.length, 0);
  await answer(tried);
  assert.equal(environment.peer.added.length, 64);
  assert.equal(environment.peer.added[0]?.candidate, "candidate:0");
  environment.socket.say({ type: "candidate", candidate: { candidate: "candidate:more", sdpMid: "0" } });
  await settle();
  assert.equal(environment.peer.added.at(-1)?.candidate, "candidate:more");
});

test("results reach the page; what is none does not", async () => {
  const foreign: unknown[] = [];
  const { environment, results, session } = await connected({ onForeignResult: (value) => foreign.push(value) });
  const [channel] = environment.peer.channels;
  const coco = { image_id: 1, bbox: [1, 2, 3, 4] };
  for (const text of [JSON.stringify(RESULT), "{broken", JSON.stringify(coco)]) channel?.onmessage?.({ data: text });
  channel?.onmessage?.({ data: new ArrayBuffer(3) });
  assert.deepEqual(results, [RESULT]);
  assert.deepEqual(foreign, [coco]);
  assert.equal(session.resultForFrame(RESULT.rtp_timestamp_out ?? 0)?.frame_id, RESULT.frame_id);
  assert.equal(session.stats().results, 1);
});

test("events arrive over a channel that the session opens when somebody listens", async () => {
  const events: SessionEvent[] = [];
  const foreign: unknown[] = [];
  const { environment } = await connected({
    onEvent: (event) => events.push(event),
    onForeignEvent: (event) => foreign.push(event),
  });
  const channel = environment.peer.channels.find(({ label }) => label === "events");
  assert.ok(channel);
  assert.equal(channel.init, undefined, "the channel is reliable and ordered");
  const weather = { type: "weather", rain: true };
  const track = { type: "track_started", mid: "0", codec: "H264" };
  for (const value of [track, EVENTS.alert_started, weather]) channel.onmessage?.({ data: JSON.stringify(value) });
  channel.onmessage?.({ data: "{broken" });
  assert.deepEqual(events, [track, EVENTS.alert_started]);
  assert.deepEqual(foreign, [weather]);
});

test("a session that nobody asks for events opens no channel for them, but takes that of a server", async () => {
  const { environment } = await connected();
  assert.deepEqual(environment.peer.channels.map(({ label }) => label), ["results"]);
  const channel = environment.peer.createDataChannel("events");
  environment.peer.ondatachannel?.({ channel });
  channel.onmessage?.({ data: JSON.stringify(EVENTS.zone_entered) });
});

test("configure resolves with the options in force, and rejects what the server refuses", async () => {
  const { environment, session, errors } = await connected();
  const first = session.configure({ score_threshold: 0.5 });
  const second = session.configure({ return: "predicted" });
  assert.deepEqual(environment.socket.of("configure").map(({ options }) => options), [{ score_threshold: 0.5 }, { return: "predicted" }]);
  environment.socket.say({ type: "configured", options: { ...OPTIONS, score_threshold: 0.5 } });
  environment.socket.say(refusal);
  assert.equal((await first).score_threshold, 0.5);
  await assert.rejects(second, (error: SaccadeError) => error.code === "bad_options" && !error.fatal);
  assert.equal(session.options?.score_threshold, 0.5);
  assert.equal(session.state, "connected");
  assert.deepEqual(errors, []);
});

test("configure gives up when no answer comes", async () => {
  const { environment, session } = await connected();
  const change = assert.rejects(session.configure({ track: false }), { code: "timeout" });
  await environment.pass(10_000);
  await change;
});

test("a lost socket resumes the session while media goes on", async () => {
  const tried = await connected();
  const { environment, session, states, errors } = tried;
  environment.socket.lose();
  const change = session.configure({ track: false });
  assert.equal(session.state, "connected");
  await environment.pass(500);
  assert.equal(environment.sockets.length, 2);
  environment.socket.welcome();
  await settle();
  assert.deepEqual(environment.socket.of("offer"), [{ type: "offer", sdp: "offer 2", session_id: "s1" }]);
  assert.deepEqual(environment.peer.offers.map(({ iceRestart }) => iceRestart), [false, false]);
  assert.equal(environment.socket.of("configure").length, 0);
  await answer(tried);
  assert.deepEqual(environment.socket.of("configure").map(({ options }) => options), [{ track: false }]);
  environment.socket.say({ type: "configured", options: { ...OPTIONS, track: false } });
  assert.equal((await change).track, false);
  assert.equal(environment.peers.length, 1);
  assert.deepEqual(states.map(({ state }) => state), ["connecting", "connected"]);
  assert.deepEqual(errors, []);
});

test("socket and media lost together: resume with an ICE restart", async () => {
  const tried = await connected();
  const { environment, session } = tried;
  environment.socket.lose();
  environment.peer.become("disconnected");
  await environment.pass(500);
  environment.socket.welcome();
  await settle();
  assert.equal(environment.peer.offers.at(-1)?.iceRestart, true);
  assert.equal(environment.socket.of("offer")[0]?.session_id, "s1");
  await answer(tried);
  assert.equal(session.state, "connected");
});

test("a session that cannot be resumed is made anew, with the options in force", async () => {
  const tried = await connected({ options: { budget_ms: 80 } });
  const { environment, session, states } = tried;
  const change = session.configure({ score_threshold: 0.5 });
  environment.socket.say({ type: "configured", options: { ...OPTIONS, score_threshold: 0.5 } });
  await change;
  environment.socket.lose();
  await environment.pass(500);
  environment.socket.welcome();
  await settle();
  environment.socket.say({ type: "error", code: "not_found", message: "no such session", fatal: false });
  await settle();
  assert.equal(environment.peers.length, 2);
  assert.equal(environment.peers[0]?.closed, true);
  assert.deepEqual(environment.socket.of("offer").at(-1), {
    type: "offer",
    sdp: "offer 1",
    options: { budget_ms: 80, score_threshold: 0.5 },
  });
  await answer(tried, "s2");
  assert.equal(session.sessionId, "s2");
  assert.deepEqual(states.map(({ state }) => state), ["connecting", "connected", "reconnecting", "connected"]);
});

test("a full server is asked again no sooner than it said", async () => {
  const { environment, session, errors, states } = await tryOut();
  environment.socket.welcome();
  await settle();
  environment.socket.say(full);
  assert.equal(session.state, "connecting");
  assert.deepEqual(errors.map(({ code, fatal, retryAfterMs }) => [code, fatal, retryAfterMs]), [["capacity", false, 8_000]]);
  assert.equal(states.at(-1)?.retryInMs, 10_000);
  await environment.pass(9_999);
  assert.equal(environment.sockets.length, 1);
  await environment.pass(1);
  assert.equal(environment.sockets.length, 2);
});

test("attempts are spaced, bounded, and end with a fatal error", async () => {
  const { environment, session, started, errors } = await tryOut({ reconnect: { maxAttempts: 3 } });
  for (const [opened, wait] of [500, 1_000, 2_000].entries()) {
    environment.socket.lose();
    await environment.pass(wait - 1);
    assert.equal(environment.sockets.length, opened + 1);
    await environment.pass(1);
    assert.equal(environment.sockets.length, opened + 2);
  }
  environment.socket.lose();
  await assert.rejects(started, { code: "server_unreachable", fatal: true });
  assert.equal(session.state, "closed");
  assert.deepEqual(errors.map(({ fatal }) => fatal), [false, false, false, true]);
  assert.equal(environment.timers, 0);
});

test("without reconnection the first loss is the end", async () => {
  const { environment, started } = await tryOut({ reconnect: false });
  environment.socket.lose();
  await assert.rejects(started, { code: "server_unreachable" });
});

test("a connection that held lets the pauses start small again", async () => {
  const tried = await connected();
  const { environment } = tried;
  for (const wait of [500, 1_000]) {
    environment.socket.lose();
    environment.peer.become("failed");
    await environment.pass(wait - 1);
    const before = environment.sockets.length;
    await environment.pass(1);
    assert.equal(environment.sockets.length, before + 1);
    environment.socket.welcome();
    await settle();
    await answer(tried);
  }
  await environment.pass(5_000);
  environment.socket.lose();
  const before = environment.sockets.length;
  await environment.pass(500);
  assert.equal(environment.sockets.length, before + 1);
});

for (const [code, name] of [[4401, "unauthorized"], [4403, "forbidden"], [1009, "too_large"]] as const) {
  test(`close code ${code} ends the session as ${name}`, async () => {
    const { environment, started } = await tryOut();
    environment.socket.lose(code, "no");
    await assert.rejects(started, { code: name, fatal: true, detail: "no" });
    assert.equal(environment.timers, 0);
  });
}

for (const code of ["no_common_codec", "unknown_model", "bad_sdp", "unauthorized", "bad_options"]) {
  test(`${code} in answer to the offer ends the session`, async () => {
    const { environment, started } = await tryOut();
    environment.socket.welcome();
    await settle();
    environment.socket.say({ type: "error", code, message: "because", fatal: code !== "bad_options" });
    await assert.rejects(started, { code, detail: "because", fatal: true });
    assert.equal(environment.peer.closed, true);
  });
}

test("another protocol version is refused", async () => {
  const { environment, started } = await tryOut();
  environment.socket.welcome(2);
  await assert.rejects(started, { code: "wrong_version" });
  assert.equal(environment.socket.closedWith, 1000);
});

test("media that never connects is an ICE time-out, told and tried again", async () => {
  const { environment, errors } = await tryOut();
  environment.socket.welcome();
  await settle();
  environment.socket.say({ type: "answer", sdp: "answer", session_id: "s1", options: OPTIONS });
  await settle();
  await environment.pass(12_000);
  assert.deepEqual(errors.map(({ code, fatal }) => [code, fatal]), [["ice_timeout", false]]);
  assert.match(errors[0]?.hint ?? "", /UDP/);
  assert.deepEqual(environment.sockets[0]?.of("bye"), [{ type: "bye" }]);
  await environment.pass(500);
  assert.equal(environment.sockets.length, 2);
});

test("no welcome and no answer are time-outs", async () => {
  const { environment, errors } = await tryOut();
  await environment.pass(10_000);
  assert.deepEqual(errors.map(({ code }) => code), ["timeout"]);
  await environment.pass(500);
  environment.socket.welcome();
  await settle();
  await environment.pass(10_000);
  assert.deepEqual(errors.map(({ code }) => code), ["timeout", "timeout"]);
});

test("a short disconnection heals by itself; a longer one restarts ICE", async () => {
  const tried = await connected();
  const { environment, session } = tried;
  environment.peer.become("disconnected");
  await environment.pass(1_500);
  environment.peer.become("connected");
  await environment.pass(1_500);
  assert.equal(environment.peer.offers.length, 1);
  environment.peer.become("disconnected");
  await environment.pass(2_000);
  assert.deepEqual(environment.peer.offers.at(-1), { iceRestart: true });
  assert.equal(session.state, "reconnecting");
  assert.equal(environment.socket.of("offer").at(-1)?.session_id, undefined);
  await answer(tried);
  assert.equal(session.state, "connected");
});

test("media that stays lost is given up for a new session", async () => {
  const tried = await connected();
  const { environment, errors } = tried;
  for (let n = 0; n < 3; n += 1) {
    environment.peer.become("failed");
    await settle();
    environment.socket.say({ type: "answer", sdp: "answer", session_id: "s1", options: OPTIONS });
    await settle();
  }
  assert.equal(environment.peers[0]?.closed, true);
  assert.equal(errors.at(-1)?.code, "media_lost");
  await environment.pass(500);
  environment.socket.welcome();
  await settle();
  assert.equal(environment.peers.length, 2);
});

test("another network restarts ICE once", async () => {
  const { environment } = await connected();
  environment.networkChanged?.();
  environment.networkChanged?.();
  await environment.pass(600);
  assert.deepEqual(environment.peer.offers.map(({ iceRestart }) => iceRestart), [false, true]);
});

test("a socket that died unseen is changed, and the session goes on over the next", async () => {
  const lost: string[] = [];
  const found: Reconnected[] = [];
  const tried = await connected({ onReconnecting: ({ code }) => lost.push(code), onReconnected: (how) => found.push(how) });
  const { environment, session } = tried;
  environment.peer.become("failed");
  await settle();
  assert.deepEqual(lost, ["media_lost"]);
  await environment.pass(1_999);
  assert.equal(environment.sockets.length, 1);
  await environment.pass(501);
  assert.equal(environment.sockets.length, 2);
  assert.deepEqual(environment.sockets[0]?.of("bye"), [], "the server would end the session");
  environment.socket.welcome();
  await settle();
  assert.deepEqual(environment.socket.of("offer").map(({ session_id }) => session_id), ["s1"]);
  assert.equal(environment.peer.offers.at(-1)?.iceRestart, true);
  await answer(tried);
  assert.deepEqual([session.state, session.sessionId, environment.peers.length], ["connected", "s1", 1]);
  assert.deepEqual(found, [{ resumed: true, tookMs: 2_500 }]);
  assert.deepEqual(lost, ["media_lost"]);
});

test("a session that could not be resumed is told to be another", async () => {
  const found: Reconnected[] = [];
  const tried = await connected({ onReconnected: (how) => found.push(how) });
  const { environment } = tried;
  environment.socket.lose();
  environment.peer.become("failed");
  await environment.pass(500);
  environment.socket.welcome();
  await settle();
  environment.socket.say({ type: "error", code: "not_found", message: "no such session", fatal: false });
  await settle();
  await answer(tried, "s2");
  assert.deepEqual(found, [{ resumed: false, tookMs: 500 }]);
});

test("a changed network over a dead socket restarts ICE over the next one", async () => {
  const tried = await connected();
  const { environment, session } = tried;
  environment.networkChanged?.();
  await environment.pass(500 + 2_000 + 500);
  assert.equal(environment.sockets.length, 2);
  environment.socket.welcome();
  await settle();
  assert.deepEqual(environment.peer.offers.map(({ iceRestart }) => iceRestart), [false, true, true]);
  await answer(tried);
  assert.deepEqual([session.state, session.sessionId, environment.peers.length], ["connected", "s1", 1]);
});

test("credentials of a TURN server that have ended are fetched before ICE restarts", async () => {
  const seconds = Math.floor(Date.now() / 1_000);
  const turn = (end: number): IceServer[] => [{ urls: ["turn:turn.example"], username: `${end}:a`, credential: "c" }];
  const tried = await tryOut();
  const { environment } = tried;
  environment.socket.welcome(1, turn(seconds - 1));
  await settle();
  await answer(tried);
  environment.peer.become("failed");
  await environment.pass(500);
  assert.equal(environment.sockets[0]?.of("offer").length, 1, "nothing is restarted with what has ended");
  environment.socket.welcome(1, turn(seconds + 600));
  await settle();
  assert.equal(environment.peer.configuration.iceServers?.[0]?.username, `${seconds + 600}:a`);
  assert.deepEqual(environment.socket.of("offer").map(({ session_id }) => session_id), ["s1"]);
  await answer(tried);
  environment.peer.become("failed");
  await settle();
  assert.equal(environment.sockets.length, 2, "those in force are used again");
  assert.equal(environment.peer.offers.length, 3);
});

test("a name of few digits is no time at which credentials end", async () => {
  for (const username of ["1001", "12:a"]) {
    const tried = await tryOut();
    const { environment } = tried;
    environment.socket.welcome(1, [{ urls: ["turn:turn.example"], username, credential: "c" }]);
    await settle();
    await answer(tried);
    environment.peer.become("failed");
    await settle();
    assert.deepEqual([environment.socket.of("offer").length, environment.sockets.length], [2, 1], username);
  }
});

for (const [name, lose] of [
  ["lost media", ({ environment }: Tried) => environment.peer.become("failed")],
  ["another network", ({ environment }: Tried) => environment.networkChanged?.()],
] as const) {
  test(`without reconnection ${name} restarts ICE over the same socket, whatever the credentials`, async () => {
    const tried = await tryOut({ reconnect: false });
    const { environment, session, errors } = tried;
    environment.socket.welcome(1, [{ urls: ["turn:turn.example"], username: "1000000001:a", credential: "c" }]);
    await settle();
    await answer(tried);
    lose(tried);
    await environment.pass(500);
    assert.deepEqual(environment.peer.offers.map(({ iceRestart }) => iceRestart), [false, true]);
    await environment.pass(9_000);
    assert.deepEqual([session.state === "closed", errors.length], [false, 0], "an answer may take its time");
    await answer(tried);
    assert.deepEqual([session.state, session.sessionId, environment.sockets.length], ["connected", "s1", 1]);
  });
}

test("without reconnection a restart that is not answered is the end", async () => {
  const { environment, session, errors } = await connected({ reconnect: false });
  environment.peer.become("failed");
  await settle();
  await environment.pass(9_999);
  assert.equal(session.state, "reconnecting");
  await environment.pass(1);
  assert.equal(session.state, "closed");
  assert.deepEqual(errors.map(({ code, fatal }) => [code, fatal]), [["timeout", true]]);
  assert.equal(environment.timers, 0);
});

test("an answer to who resumes on a new socket may take its time", async () => {
  const tried = await connected();
  const { environment, session } = tried;
  environment.socket.lose();
  await environment.pass(500);
  environment.socket.welcome();
  await settle();
  await environment.pass(9_999);
  assert.equal(environment.socket.closedWith, null);
  await environment.pass(1);
  assert.equal(environment.socket.closedWith, 1000);
  await environment.pass(500);
  assert.equal(environment.sockets.length, 3);
  environment.socket.welcome();
  await settle();
  assert.equal(environment.socket.of("offer")[0]?.session_id, "s1");
  await answer(tried);
  assert.deepEqual([session.state, environment.peers.length], ["connected", 1]);
});

test("a loss is told once, whatever else goes wrong until media is back", async () => {
  const told: string[] = [];
  const tried = await connected({
    onReconnecting: ({ code }) => told.push(code),
    onReconnected: ({ resumed }) => told.push(`resumed: ${resumed}`),
  });
  const { environment } = tried;
  environment.chance = 0;
  environment.peer.become("failed");
  await settle();
  environment.socket.say({ type: "draining", reconnect_after_ms: 1_000 });
  await environment.pass(1_000);
  assert.equal(environment.sockets.length, 2);
  environment.socket.welcome();
  await settle();
  await answer(tried, "s2");
  assert.deepEqual(told, ["media_lost", "resumed: false"]);
  environment.peer.become("failed");
  assert.deepEqual(told.slice(2), ["media_lost"], "the next loss is told, too");
});

test("where nothing was connected, nothing is lost", async () => {
  const told: string[] = [];
  const tried = await tryOut({
    onReconnecting: ({ code }) => told.push(code),
    onReconnected: ({ resumed }) => told.push(`resumed: ${resumed}`),
  });
  const { environment, session } = tried;
  environment.socket.welcome();
  await settle();
  environment.socket.say({ type: "draining", reconnect_after_ms: 1_000 });
  await environment.pass(1_250);
  assert.equal(environment.sockets.length, 2);
  environment.socket.welcome();
  await settle();
  await answer(tried);
  assert.equal(session.state, "connected");
  assert.deepEqual(told, []);
});

for (const [name, lose] of [
  ["media is lost", ({ environment }: Tried) => environment.peer.become("failed")],
  ["the server drains", ({ environment }: Tried) => environment.socket.say({ type: "draining", reconnect_after_ms: 1_000 })],
  [
    "a resumption is refused",
    async ({ environment }: Tried) => {
      environment.socket.lose();
      await environment.pass(500);
      environment.socket.welcome();
      await settle();
      environment.socket.say({ type: "error", code: "not_found", message: "no such session", fatal: false });
    },
  ],
] as const) {
  test(`a page that closes the session when it hears that ${name} hears of one end`, async () => {
    const tried: Tried = await connected({ onReconnecting: () => tried.session.close() });
    await lose(tried);
    await tried.environment.pass(60_000);
    assert.deepEqual(tried.states.map(({ state }) => state), ["connecting", "connected", "closed"]);
    assert.deepEqual(tried.states.at(-1)?.error, null);
    assert.equal(tried.environment.timers, 0);
    assert.ok(tried.environment.peers.every(({ closed }) => closed));
  });
}

test("a draining server is left when it says, for a new session", async () => {
  const { environment, session, errors } = await connected();
  environment.chance = 0;
  environment.socket.say({ type: "draining", reconnect_after_ms: 3_000 });
  assert.equal(errors[0]?.code, "draining");
  assert.equal(session.state, "connected");
  environment.socket.lose(1001);
  await environment.pass(2_999);
  assert.equal(environment.sockets.length, 1);
  await environment.pass(1);
  assert.equal(environment.sockets.length, 2);
  assert.equal(session.state, "reconnecting");
  environment.socket.welcome();
  await settle();
  assert.equal(environment.socket.of("offer")[0]?.session_id, undefined);
  assert.equal(environment.peers.length, 2);
});

test("a draining server that keeps its socket open is told bye", async () => {
  const { environment } = await connected();
  environment.chance = 0;
  environment.socket.say({ type: "draining", reconnect_after_ms: 3_000 });
  await environment.pass(3_000);
  assert.deepEqual(environment.sockets[0]?.of("bye"), [{ type: "bye" }]);
});

test("a session that the server ends is over", async () => {
  const { environment, session, errors } = await connected();
  environment.socket.say({ type: "closed", reason: "max_duration" });
  assert.equal(session.state, "closed");
  assert.deepEqual(errors.map(({ code, detail }) => [code, detail]), [["session_ended", "max_duration"]]);
});

test("close says bye and leaves nothing behind", async () => {
  const tried = await connected();
  const { environment, session, states } = tried;
  const change = assert.rejects(session.configure({ track: false }), { code: "not_connected" });
  session.close();
  session.close();
  await change;
  assert.deepEqual(environment.socket.of("bye").length, 1);
  assert.equal(environment.socket.closedWith, 1000);
  assert.equal(environment.peer.closed, true);
  assert.equal(environment.timers, 0);
  assert.equal(environment.networkChanged, null);
  assert.deepEqual(states.filter(({ state }) => state === "closed").map(({ error }) => error), [null]);
  environment.socket.lose();
  environment.peer.become("failed");
  await environment.pass(60_000);
  assert.equal(environment.sockets.length, 1);
  await assert.rejects(session.configure({ track: true }), { code: "not_connected" });
});

test("close while connecting calls it off", async () => {
  const { environment, session, started, errors } = await tryOut();
  session.close();
  await assert.rejects(started, { code: "aborted" });
  assert.equal(environment.timers, 0);
  assert.deepEqual(errors, []);
});

test("a source that ends, ends the session; one without video starts none", async () => {
  const track = new FakeTrack();
  const { session, errors } = await connected({ stream: fakeStream(track) });
  track.dispatchEvent(new Event("ended"));
  assert.equal(session.state, "closed");
  assert.equal(errors[0]?.code, "source_ended");
  const empty = await tryOut({ stream: fakeStream(null) });
  empty.environment.socket.welcome();
  await assert.rejects(empty.started, { code: "no_video" });
});

test("another stream takes the place of the first", async () => {
  const old = new FakeTrack();
  const next = new FakeTrack();
  const { environment, session } = await connected({ stream: fakeStream(old) });
  await session.setStream(fakeStream(next));
  assert.deepEqual(environment.peer.replaced, [next]);
  old.dispatchEvent(new Event("ended"));
  assert.equal(session.state, "connected");
});

test("with the socket away, the control channel takes changes", async () => {
  const { environment, session } = await connected({ controlChannel: true });
  environment.socket.lose();
  const change = session.configure({ track: false });
  const control = environment.peer.channels.find(({ label }) => label === "control");
  assert.deepEqual(control?.sent.map((text) => JSON.parse(text) as unknown), [{ type: "configure", options: { track: false } }]);
  control?.onmessage?.({ data: JSON.stringify({ type: "configured", options: { ...OPTIONS, track: false } }) });
  assert.equal((await change).track, false);
});

test("statistics count what came", async () => {
  const { environment, session } = await connected();
  const [channel] = environment.peer.channels;
  const send = (result: SessionResult): void => channel?.onmessage?.({ data: JSON.stringify(result) });
  for (let n = 0; n < 10; n += 1) {
    environment.time += 100;
    const degraded = n < 9 ? ["lower_fps"] : ["skip_inference", "lower_fps"];
    send({ ...RESULT, frame_id: n, met: n % 2 === 0, dropped: { superseded: n, late: 1, skipped: 2 * n }, degraded });
  }
  const stats = session.stats();
  assert.equal(stats.results, 10);
  assert.equal(stats.resultsPerSecond, 5);
  assert.equal(stats.met, 0.5);
  assert.deepEqual(stats.dropped, { superseded: 9, late: 1, skipped: 18 });
  assert.deepEqual(stats.degraded, ["skip_inference", "lower_fps"]);
  assert.equal(stats.stages.inference, 5.2);
  assert.deepEqual(stats.total, { p50: 11.4, p95: 11.4 });
});

