// One end of a pion/ice connection, in the words of dtls_party.py.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"log"
	"net"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/ice/v2"
)

const (
	most    = 52
	stalled = 250 * time.Millisecond
)

type command struct {
	Do      string
	Remote  json.RawMessage
	Size    int
	Seconds float64
	Rounds  int
	Window  int64
}

type line map[string]any

var output sync.Mutex

func say(what line) {
	output.Lock()
	defer output.Unlock()
	must(json.NewEncoder(os.Stdout).Encode(what))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func cpu() float64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}

func send(conn net.Conn, c command) line {
	var answered int64
	heard := make(chan struct{}, 1)
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			if n >= 8 {
				atomic.StoreInt64(&answered, int64(binary.BigEndian.Uint64(buffer)))
			}
			select {
			case heard <- struct{}{}:
			default:
			}
		}
	}()
	datagram := make([]byte, c.Size)
	burst := c.Window / 4
	if burst > most {
		burst = most
	}
	var sent, lost int64
	began, used := time.Now(), cpu()
	for time.Since(began).Seconds() < c.Seconds {
		if sent-lost-atomic.LoadInt64(&answered)+burst <= c.Window {
			for n := int64(0); n < burst; n++ {
				if _, err := conn.Write(datagram); err != nil {
					log.Fatal(err)
				}
			}
			sent += burst
			continue
		}
		select {
		case <-heard:
		case <-time.After(stalled):
			lost = sent - atomic.LoadInt64(&answered)
		}
	}
	return line{"sent": sent, "seconds": time.Since(began).Seconds(), "cpu": cpu() - used}
}

func count(conn net.Conn, c command, stop chan struct{}) line {
	say(line{"started": true})
	used := cpu()
	var received int64
	go func() {
		var answered int64
		buffer, answer := make([]byte, 2048), make([]byte, 38)
		for {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
			if n := atomic.AddInt64(&received, 1); n-answered >= c.Window/8 {
				answered = n
				binary.BigEndian.PutUint64(answer, uint64(n))
				conn.Write(answer)
			}
		}
	}()
	<-stop
	return line{"received": atomic.LoadInt64(&received), "cpu": cpu() - used}
}

func ping(conn net.Conn, c command) line {
	times := make([]float64, c.Rounds)
	datagram, buffer := make([]byte, c.Size), make([]byte, 2048)
	for n := range times {
		began := time.Now()
		conn.Write(datagram)
		conn.SetReadDeadline(began.Add(time.Second))
		conn.Read(buffer)
		times[n] = time.Since(began).Seconds()
	}
	sort.Float64s(times)
	return line{"median": times[c.Rounds/2], "p99": times[c.Rounds*99/100]}
}

func echo(conn net.Conn, stop chan struct{}) line {
	say(line{"started": true})
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			conn.Write(buffer[:n])
		}
	}()
	<-stop
	return line{"cpu": 0}
}

// serve tells how it can be reached, connects, and does what it is told.
func serve(description any, connect func(remote json.RawMessage) (net.Conn, string)) {
	say(line{"description": description})
	lines := json.NewDecoder(bufio.NewReader(os.Stdin))
	var conn net.Conn
	stop := make(chan struct{})
	for {
		var c command
		if lines.Decode(&c) != nil {
			return
		}
		switch {
		case c.Remote != nil:
			var ready string
			conn, ready = connect(c.Remote)
			say(line{"ready": ready})
		case c.Do == "send":
			go func() { say(send(conn, c)) }()
		case c.Do == "count":
			go func() { say(count(conn, c, stop)) }()
		case c.Do == "ping":
			go func() { say(ping(conn, c)) }()
		case c.Do == "echo":
			go func() { say(echo(conn, stop)) }()
		case c.Do == "stop":
			close(stop)
		}
	}
}

type description struct {
	Ufrag, Pwd string
	Candidates []string
}

func main() {
	first := os.Args[1] == "first"
	agent, err := ice.NewAgent(&ice.AgentConfig{
		NetworkTypes:     []ice.NetworkType{ice.NetworkTypeUDP4},
		MulticastDNSMode: ice.MulticastDNSModeDisabled,
	})
	must(err)
	gathered := make(chan struct{})
	var own description
	own.Ufrag, own.Pwd, err = agent.GetLocalUserCredentials()
	must(err)
	must(agent.OnCandidate(func(candidate ice.Candidate) {
		if candidate == nil {
			close(gathered)
			return
		}
		own.Candidates = append(own.Candidates, candidate.Marshal())
	}))
	must(agent.GatherCandidates())
	<-gathered
	serve(own, func(told json.RawMessage) (net.Conn, string) {
		var remote description
		must(json.Unmarshal(told, &remote))
		for _, line := range remote.Candidates {
			candidate, err := ice.UnmarshalCandidate(line)
			must(err)
			must(agent.AddRemoteCandidate(candidate))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var conn *ice.Conn
		if first {
			conn, err = agent.Dial(ctx, remote.Ufrag, remote.Pwd)
		} else {
			conn, err = agent.Accept(ctx, remote.Ufrag, remote.Pwd)
		}
		must(err)
		return conn, "none"
	})
}
