// A browser's RTCPeerConnection, whatever ICE servers the signaling server names.

export function makePeerConnection(iceServers) {
  try {
    return new RTCPeerConnection({ iceServers });
  } catch {
    // One server the browser does not understand is no reason to do without the others.
    const good = iceServers.filter((server) => {
      try {
        new RTCPeerConnection({ iceServers: [server] }).close();
        return true;
      } catch {
        return false;
      }
    });
    return new RTCPeerConnection({ iceServers: good });
  }
}
