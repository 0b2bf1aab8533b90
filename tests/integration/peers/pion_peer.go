// A program around Debian's pion/ice: one session, in the words of support/foreign_peer.py.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"strings"
	"sync"

	"github.com/pion/ice/v2"
)

type config struct {
	Controlling bool
	Lite        bool
	Trickle     bool
	Stun        []any
	Turn        []any
}

type order struct {
	Remote    *struct{ Ufrag, Pwd string }
	Candidate string
	Send      []string
	Restart   bool
}

type event map[string]any

var output sync.Mutex

func say(what event) {
	output.Lock()
	defer output.Unlock()
	must(json.NewEncoder(os.Stdout).Encode(what))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func servers(c config) (urls []*ice.URL) {
	if len(c.Stun) > 0 {
		urls = append(urls, &ice.URL{
			Scheme: ice.SchemeTypeSTUN, Host: c.Stun[0].(string), Port: int(c.Stun[1].(float64)),
			Proto: ice.ProtoTypeUDP,
		})
	}
	if len(c.Turn) > 0 {
		urls = append(urls, &ice.URL{
			Scheme: ice.SchemeTypeTURN, Host: c.Turn[0].(string), Port: int(c.Turn[1].(float64)),
			Username: c.Turn[2].(string), Password: c.Turn[3].(string), Proto: ice.ProtoTypeUDP,
		})
	}
	return urls
}

func line(c ice.Candidate) string { return "candidate:" + c.Marshal() }

func tell(agent *ice.Agent) {
	must(agent.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			say(event{"event": "gathered"})
			return
		}
		say(event{"event": "candidate", "line": line(c)})
	}))
	must(agent.OnConnectionStateChange(func(state ice.ConnectionState) {
		switch state {
		case ice.ConnectionStateConnected:
			say(event{"event": "state", "state": "ready"})
		case ice.ConnectionStateFailed:
			say(event{"event": "state", "state": "failed"})
		}
	}))
	must(agent.OnSelectedCandidatePairChange(func(local, remote ice.Candidate) {
		say(event{"event": "selected", "local": line(local), "remote": line(remote)})
	}))
}

func main() {
	var c config
	must(json.Unmarshal([]byte(os.Args[1]), &c))
	types := []ice.CandidateType{
		ice.CandidateTypeHost, ice.CandidateTypeServerReflexive, ice.CandidateTypeRelay,
	}
	if c.Lite {
		types = types[:1]
	}
	agent, err := ice.NewAgent(&ice.AgentConfig{
		Urls: servers(c), Lite: c.Lite, CandidateTypes: types, NetworkTypes: []ice.NetworkType{
			ice.NetworkTypeUDP4, ice.NetworkTypeUDP6,
		},
	})
	must(err)
	tell(agent)
	gather(agent)

	connected := make(chan *ice.Conn, 1)
	var conn *ice.Conn
	met := false
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var o order
		must(json.Unmarshal(orders.Bytes(), &o))
		switch {
		case o.Remote != nil && met:
			must(agent.SetRemoteCredentials(o.Remote.Ufrag, o.Remote.Pwd))
		case o.Remote != nil:
			met = true
			go connect(agent, c.Controlling, o.Remote.Ufrag, o.Remote.Pwd, connected)
		case o.Candidate != "":
			candidate, err := ice.UnmarshalCandidate(strings.TrimPrefix(o.Candidate, "candidate:"))
			must(err)
			must(agent.AddRemoteCandidate(candidate))
		case o.Restart:
			must(agent.Restart("", ""))
			gather(agent)
		case o.Send != nil:
			if conn == nil {
				conn = <-connected
			}
			for _, text := range o.Send {
				_, err := conn.Write([]byte(text))
				must(err)
			}
		}
	}
}

func gather(agent *ice.Agent) {
	ufrag, pwd, err := agent.GetLocalUserCredentials()
	must(err)
	say(event{"event": "credentials", "ufrag": ufrag, "pwd": pwd})
	must(agent.GatherCandidates())
}

func connect(agent *ice.Agent, controlling bool, ufrag, pwd string, connected chan<- *ice.Conn) {
	begin := agent.Accept
	if controlling {
		begin = agent.Dial
	}
	conn, err := begin(context.Background(), ufrag, pwd)
	must(err)
	connected <- conn
	buffer := make([]byte, 65536)
	for {
		length, err := conn.Read(buffer)
		must(err)
		say(event{"event": "received", "text": string(buffer[:length])})
	}
}
