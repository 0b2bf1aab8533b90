// One end of a pion/dtls association over UDP, in the words of dtls_party.py.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
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

	"github.com/pion/dtls/v2"
	"github.com/pion/dtls/v2/pkg/crypto/selfsign"
)

const (
	most    = 52
	stalled = 250 * time.Millisecond
)

type command struct {
	Do      string
	Remote  []any
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

func associate(first bool, local *net.UDPAddr, remote []any) *dtls.Conn {
	peer := &net.UDPAddr{IP: net.ParseIP(remote[0].(string)), Port: int(remote[1].(float64))}
	socket, err := net.DialUDP("udp", local, peer)
	must(err)
	must(socket.SetReadBuffer(4 << 20))
	must(socket.SetWriteBuffer(4 << 20))
	certificate, err := selfsign.GenerateSelfSigned()
	must(err)
	config := &dtls.Config{
		Certificates:       []tls.Certificate{certificate},
		CipherSuites:       []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		InsecureSkipVerify: true,
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var conn *dtls.Conn
	if first {
		conn, err = dtls.ClientWithContext(ctx, socket, config)
	} else {
		conn, err = dtls.ServerWithContext(ctx, socket, config)
	}
	must(err)
	return conn
}

func send(conn *dtls.Conn, c command) line {
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
	elapsed, used := time.Since(began).Seconds(), cpu()-used
	time.Sleep(stalled) // for what is under way
	return line{"sent": sent, "seconds": elapsed, "cpu": used}
}

func count(conn *dtls.Conn, c command, stop chan struct{}) line {
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

func ping(conn *dtls.Conn, c command) line {
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

func echo(conn *dtls.Conn, stop chan struct{}) line {
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

func main() {
	first, ip := os.Args[1] == "first", os.Args[2]
	// A port that is free now is taken in a moment.
	probe, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	must(err)
	local := probe.LocalAddr().(*net.UDPAddr)
	must(probe.Close())
	say(line{"description": []any{local.IP.String(), local.Port}})
	lines := json.NewDecoder(bufio.NewReader(os.Stdin))
	var conn *dtls.Conn
	stop := make(chan struct{})
	for {
		var c command
		if lines.Decode(&c) != nil {
			return
		}
		switch {
		case c.Remote != nil:
			conn = associate(first, local, c.Remote)
			say(line{"ready": "ECDHE-ECDSA-AES128-GCM-SHA256"})
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
