// libdatachannel's end of the tests of data channels: it says and hears JSON, an object a line, and sends every
// message of a channel back on it.
"use strict";
const readline = require("node:readline");
const nd = require("node-datachannel");

const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const pc = new nd.PeerConnection("peer", { iceServers: [], bindAddress: "127.0.0.1" });

pc.onGatheringStateChange((state) => {
  if (state === "complete") say({ description: pc.localDescription() });
});
pc.onStateChange((state) => say({ state }));

const channels = new Map();
function take(channel) {
  const label = channel.getLabel();
  channels.set(label, channel);
  channel.onMessage((data) => {
    if (typeof data === "string") channel.sendMessage(data);
    else channel.sendMessageBinary(Buffer.from(data));
  });
  channel.onClosed(() => say({ closed: label }));
  const opened = () => say({ channel: label, protocol: channel.getProtocol() });
  if (channel.isOpen()) opened(); else channel.onOpen(opened);
}
pc.onDataChannel(take);

const commands = {
  // Offers, with a channel of this name and these limits.
  open: ({ label, unordered, maxRetransmits, protocol }) => {
    const bounds = { protocol: protocol || "", unordered: Boolean(unordered) };
    if (maxRetransmits !== undefined && maxRetransmits !== null) bounds.maxRetransmits = maxRetransmits;
    take(pc.createDataChannel(label, bounds));
  },
  describe: ({ type, sdp }) => pc.setRemoteDescription(sdp, type),
  send: ({ label, text }) => channels.get(label).sendMessage(text),
  close: ({ label }) => channels.get(label).close(),
  end: () => { pc.close(); nd.cleanup(); process.exit(0); },
};
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [command, argument] = JSON.parse(line);
  commands[command](argument);
}).on("close", commands.end);
