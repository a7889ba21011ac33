package stack

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// KafkaOptions of one broker.
type KafkaOptions struct {
	// Settings are the broker's, over the defaults of this package. By those a
	// topic exists only once it was created, which Connect does for a connector
	// that has topic.creation.default.partitions and .replication.factor. With
	// auto.create.topics.enable=true it is enough to ask for one.
	Settings map[string]string
	JVM      JVM
}

// Kafka is a running broker that is its own controller. Everyone on loopback
// may do everything.
type Kafka struct {
	*Server
	controller *port
}

// kafkaHeapMax is enough for the rates of a test, in MiB.
const kafkaHeapMax = 320

// Kafka starts a broker: it fetches one unless that was done before, and returns
// when clients find it.
func (s *Stack) Kafka(ctx context.Context, options KafkaOptions) (*Kafka, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	java, err := s.findJava(ctx)
	if err != nil {
		return nil, err
	}
	dirs, err := s.fetchJars(ctx, kafkaJars)
	if err != nil {
		return nil, err
	}
	server, err := s.newServer("kafka", "Kafka "+kafkaVersion, nil)
	if err != nil {
		return nil, err
	}
	k := &Kafka{Server: server}
	began := time.Now()
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := k.create(ctx, java, dirs[0], options); err != nil {
		return nil, fmt.Errorf("start %s: %w", k.name, err)
	}
	s.say("started %s on %s in %s", k.name, k.Addr(), time.Since(began).Round(time.Millisecond))
	return k, nil
}

func (k *Kafka) create(ctx context.Context, java javaBuild, jars string, options KafkaOptions) (err error) {
	if k.port, err = reservePort(); err != nil {
		return err
	}
	if k.controller, err = reservePort(); err != nil {
		return err
	}
	k.abandoned = func() { k.controller.release() }
	if err := os.Mkdir(k.data(), 0o755); err != nil {
		return err
	}
	// All that the tool that formats a data directory does for one node.
	if err := writeProperties(filepath.Join(k.data(), "meta.properties"), map[string]string{
		"version": "1", "node.id": "1", "cluster.id": "dW5zdGFsZS1zdGFja3MtMQ",
	}); err != nil {
		return err
	}
	settings := k.settings()
	maps.Copy(settings, options.Settings)
	args, err := k.kafkaProgram(jars, "kafka.Kafka", settings)
	if err != nil {
		return err
	}
	k.probe = k.isLetIn
	options.JVM.HeapMax = cmp.Or(options.JVM.HeapMax, kafkaHeapMax)
	return k.startJava(ctx, java, options.JVM, args...)
}

// settings are the defaults.
func (k *Kafka) settings() map[string]string {
	controller := net.JoinHostPort("127.0.0.1", strconv.Itoa(k.controller.number))
	return map[string]string{
		"node.id":                        "1",
		"process.roles":                  "broker,controller",
		"controller.quorum.voters":       "1@" + controller,
		"controller.listener.names":      "CONTROLLER",
		"listeners":                      "PLAINTEXT://" + k.Addr() + ",CONTROLLER://" + controller,
		"advertised.listeners":           "PLAINTEXT://" + k.Addr(),
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                       k.data(),
		"auto.create.topics.enable":      "false",
		// The internal topics, for one broker.
		"offsets.topic.num.partitions":                     "1",
		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.num.partitions":             "1",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.num.partitions":     "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		// A group does not wait for members that might come.
		"group.initial.rebalance.delay.ms": "0",
		// A broker that starts again after a kill is let in when the session of
		// its former life is over, by default after nine seconds.
		"broker.session.timeout.ms":    "2000",
		"broker.heartbeat.interval.ms": "500",
		// The same holds for a member of a group, which may choose.
		"group.min.session.timeout.ms": "100",
		// 128 MiB of the heap otherwise.
		"log.cleaner.dedupe.buffer.size": "2097152",
	}
}

// Brokers is the address to bootstrap from.
func (k *Kafka) Brokers() string { return k.Addr() }

// isLetIn reports whether the broker tells its clients of itself. It answers
// before that: until the controller has lifted its fence it is in nobody's
// metadata and leads no partition. This asks for the metadata of no topic
// (https://kafka.apache.org/protocol#The_Messages_Metadata, version 1).
func (k *Kafka) isLetIn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", k.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	request := []byte{
		0, 0, 0, 14, // bytes that follow
		0, 3, 0, 1, // Metadata, version 1
		0, 0, 0, 1, // correlation
		0xff, 0xff, // no client id
		0, 0, 0, 0, // topics
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var reply [12]byte // bytes that follow, correlation, brokers
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return fmt.Errorf("read the metadata: %w", err)
	}
	if binary.BigEndian.Uint32(reply[8:]) == 0 {
		return errors.New("the controller has not let the broker in yet")
	}
	return nil
}
