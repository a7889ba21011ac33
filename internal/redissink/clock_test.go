package redissink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
)

// A clock that was set, or a machine that stood still together with its clock,
// makes the age of every change a guess: the shield of a reader may be gone.
func TestClocksThatMoveApartAreNoticed(t *testing.T) {
	at := time.Unix(1000, 0)
	for _, test := range []struct {
		name           string
		firstTook      time.Duration
		elapsed        time.Duration
		took           time.Duration
		master         int64 // since the first look
		wrong          bool
		when, whenWant time.Duration
	}{
		{"together", 0, time.Minute, 0, 60_000, false, time.Second, 61 * time.Second},
		{"a little behind", 0, time.Minute, 0, 59_000, false, time.Second, 60 * time.Second},
		{"a little ahead", 0, time.Minute, 0, 61_000, false, time.Second, 62 * time.Second},
		{"we stood still", 0, time.Second, 0, 601_000, true, time.Second, 602 * time.Second},
		{"set back", 0, time.Minute, 0, -3_600_000, true, 0, -time.Hour},
		// Redis was busy before it read its TIME, or behind that.
		{"an answer that began late", 0, time.Minute, 4 * time.Second, 60_000, false, time.Second, 61 * time.Second},
		{"an answer that came late", 0, time.Minute, 4 * time.Second, 56_000, false, time.Second, 57 * time.Second},
		{"a quick answer behind one that came late", 4 * time.Second, time.Minute, 0, 64_000, false, time.Second, 65 * time.Second},
		{"set back during a slow answer", 0, time.Minute, 4 * time.Second, 53_000, true, 0, 53 * time.Second},
		{"we stood still during a slow answer", 0, time.Minute, 4 * time.Second, 63_000, true, 0, 63 * time.Second},
		{"an answer that took too long to tell", 0, time.Minute, 6 * time.Second, 60_000, true, 0, time.Minute},
	} {
		c := clock{master: 5_000, sent: at.Add(-test.firstTook), received: at}
		received := at.Add(test.elapsed)
		err := c.set(5_000+test.master, received.Add(-test.took), received)
		if errors.Is(err, guard.ErrClock) != test.wrong {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := c.when(received.Add(test.when)); got != 5_000+test.whenWant.Milliseconds() {
			t.Errorf("%s: %d ms, want %s after 5 s", test.name, got, test.whenWant)
		}
	}
}

// A later batch of the round trip may fail. Whoever then sent the rest again would
// do so by the clock as it was set, of changes whose age was judged before.
func TestADriftIsNotForgottenForALaterBatch(t *testing.T) {
	for name, failure := range map[string]string{
		"a full Redis":      "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
		"a restarted Redis": "-NOSCRIPT No matching script.\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			var asked atomic.Int64
			client := redis.NewClient(&redis.Options{MaxRetries: -1, Protocol: 2, DisableIdentity: true, Dialer: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go answer(theirs, func() string {
					if asked.Add(1) == 1 {
						return fmt.Sprintf("*2\r\n$2\r\nOK\r\n:%d\r\n", now.Add(5*time.Minute).UnixMilli())
					}
					return failure
				})
				return ours, nil
			}})
			t.Cleanup(func() { _ = client.Close() })
			s := New(client, Options{Entries: []plan.Entry{{OnChange: plan.Warm, TTL: time.Hour}}})
			s.owner, s.streams, s.sent = "owner", []stream{{watermark: "w"}}, make([]int64, 1)
			s.clock = clock{now.UnixMilli(), now, now}
			var batches []*plan.Batch
			for _, key := range []string{"a", "b"} {
				b := plan.NewBatch()
				b.Add([]byte(key), plan.Set, 0, []byte("{}"), 1)
				b.Until = now.Add(guard.UntilMax)
				batches = append(batches, b)
			}
			written, err := s.Write(t.Context(), batches)
			if written != 1 || !errors.Is(err, guard.ErrClock) {
				t.Errorf("%d written, %v: the clocks are five minutes apart", written, err)
			}
			if n := asked.Load(); n != 2 {
				t.Errorf("%d commands: something was sent again", n)
			}
		})
	}
}

// answer answers each script that is called over conn.
func answer(conn net.Conn, reply func() string) {
	defer conn.Close()
	commands := bufio.NewReader(conn)
	for {
		var arguments int
		if _, err := fmt.Fscanf(commands, "*%d\r\n", &arguments); err != nil {
			return
		}
		var command string
		for i := range arguments {
			var length int
			if _, err := fmt.Fscanf(commands, "$%d\r\n", &length); err != nil {
				return
			}
			argument := make([]byte, length+2)
			if _, err := io.ReadFull(commands, argument); err != nil {
				return
			}
			if i == 0 {
				command = string(argument[:length])
			}
		}
		text := "-ERR unknown command\r\n"
		if command == "EVALSHA" {
			text = reply()
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}
