package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ConnectOptions of one worker of Kafka Connect.
type ConnectOptions struct {
	// Kafka keeps the connectors, their offsets and what they capture.
	Kafka *Kafka
	// Registry, if not nil, brings the Avro converter, which becomes that of
	// every connector that does not choose. Otherwise that is JSON with schemas.
	Registry *Registry
	// Settings are the worker's, over the defaults of this package.
	Settings map[string]string
	JVM      JVM
}

// Connect is a running worker of Kafka Connect, distributed, with Debezium's
// connector for PostgreSQL. Several on one Kafka know nothing of each other. Its
// connectors and their offsets are in Kafka, so they survive with that.
type Connect struct {
	*Server
}

// connectHeapMax is in MiB.
const connectHeapMax = 320

// Connect starts a worker of Kafka Connect: it fetches it and its plugins unless
// that was done before, and returns when it takes connectors.
func (s *Stack) Connect(ctx context.Context, options ConnectOptions) (*Connect, error) {
	if options.Kafka == nil {
		return nil, errors.New("Connect needs a Kafka")
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	java, err := s.findJava(ctx)
	if err != nil {
		return nil, err
	}
	sets := []jarSet{kafkaJars, debeziumJars}
	if options.Registry != nil {
		sets = append(sets, converterJars)
	}
	dirs, err := s.fetchJars(ctx, sets...)
	if err != nil {
		return nil, err
	}
	server, err := s.newServer("connect", "Kafka Connect "+kafkaVersion, nil)
	if err != nil {
		return nil, err
	}
	c := &Connect{Server: server}
	began := time.Now()
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := c.create(ctx, java, dirs[0], dirs[1:], options); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	s.say("started %s on %s in %s", c.name, c.Addr(), time.Since(began).Round(time.Millisecond))
	return c, nil
}

func (c *Connect) create(ctx context.Context, java javaBuild, jars string, plugins []string, options ConnectOptions) (err error) {
	if c.port, err = reservePort(); err != nil {
		return err
	}
	settings := c.settings(plugins, options)
	maps.Copy(settings, options.Settings)
	args, err := c.kafkaProgram(jars, "org.apache.kafka.connect.cli.ConnectDistributed", settings)
	if err != nil {
		return err
	}
	c.probe = func(ctx context.Context) error { return getOK(ctx, c.URL()+"/health") }
	options.JVM.HeapMax = cmp.Or(options.JVM.HeapMax, connectHeapMax)
	return c.startJava(ctx, java, options.JVM, args...)
}

// settings are the defaults.
func (c *Connect) settings(plugins []string, options ConnectOptions) map[string]string {
	group := filepath.Base(c.dir)
	settings := map[string]string{
		"bootstrap.servers":                       options.Kafka.Brokers(),
		"group.id":                                group,
		"listeners":                               c.URL(),
		"rest.advertised.host.name":               "127.0.0.1",
		"rest.advertised.port":                    strconv.Itoa(c.Port()),
		"config.storage.topic":                    group + "-configs",
		"config.storage.replication.factor":       "1",
		"offset.storage.topic":                    group + "-offsets",
		"offset.storage.partitions":               "1",
		"offset.storage.replication.factor":       "1",
		"offset.flush.interval.ms":                "1000",
		"status.storage.topic":                    group + "-status",
		"status.storage.partitions":               "1",
		"status.storage.replication.factor":       "1",
		"plugin.path":                             strings.Join(plugins, ","),
		"plugin.discovery":                        "service_load",
		"connector.client.config.override.policy": "All",
		// A worker that starts again after a kill is given its tasks when the
		// session of its former life is over, by default after ten seconds.
		"session.timeout.ms":    "3000",
		"heartbeat.interval.ms": "500",
		// By default the group then waits five minutes for that one to return.
		"scheduled.rebalance.max.delay.ms": "0",
	}
	converters := JSONConverters(true)
	if options.Registry != nil {
		converters = options.Registry.AvroConverters()
	}
	maps.Copy(settings, converters)
	return settings
}

// URL is of the REST API.
func (c *Connect) URL() string { return "http://" + c.Addr() }

const avroConverter = "io.apicurio.registry.utils.converter.AvroConverter"

// AvroConverters are the settings of a connector that writes keys and values in
// Avro, in the format of Confluent's: a zero byte, four bytes of the schema's id
// in this registry, the record.
func (r *Registry) AvroConverters() map[string]string {
	settings := map[string]string{
		// Avro allows fewer names than PostgreSQL.
		"schema.name.adjustment.mode": "avro",
		"field.name.adjustment.mode":  "avro",
	}
	for _, side := range []string{"key", "value"} {
		maps.Copy(settings, prefixed(side+".converter", map[string]string{
			"":                                   avroConverter,
			".apicurio.registry.url":             r.URL() + "/apis/registry/v2",
			".apicurio.registry.auto-register":   "true",
			".apicurio.registry.find-latest":     "false",
			".apicurio.registry.as-confluent":    "true",
			".apicurio.registry.use-id":          "contentId",
			".apicurio.registry.headers.enabled": "false",
		}))
	}
	return settings
}

// JSONConverters are the settings of a connector that writes keys and values in
// JSON: each with its schema, or alone.
func JSONConverters(schemas bool) map[string]string {
	settings := map[string]string{}
	for _, side := range []string{"key", "value"} {
		maps.Copy(settings, prefixed(side+".converter", map[string]string{
			"":                "org.apache.kafka.connect.json.JsonConverter",
			".schemas.enable": strconv.FormatBool(schemas),
			// A NULL in a column with a default would be written as the default.
			".replace.null.with.default": "false",
		}))
	}
	return settings
}

func prefixed(prefix string, settings map[string]string) map[string]string {
	long := map[string]string{}
	for name, value := range settings {
		long[prefix+name] = value
	}
	return long
}
