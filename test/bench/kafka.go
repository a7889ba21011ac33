package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/stack"
)

// A pipeline is what stands between PostgreSQL and a service that reads Kafka.
type pipeline struct {
	kafka    *stack.Kafka
	admin    *kadm.Client
	client   *kgo.Client // of admin
	registry *registry
}

// partitions of a topic, unless its number is what is measured.
const partitions = 6

// startKafka starts the broker and the registry, once.
func (b *bench) startKafka(ctx context.Context) (err error) {
	if b.pipeline.kafka != nil {
		return nil
	}
	if b.pipeline.kafka, err = b.stack.Kafka(ctx, stack.KafkaOptions{JVM: stack.JVM{FullJIT: true}}); err != nil {
		return err
	}
	if b.pipeline.client, err = kgo.NewClient(kgo.SeedBrokers(b.pipeline.kafka.Brokers())); err != nil {
		return err
	}
	b.pipeline.admin = kadm.NewClient(b.pipeline.client)
	if b.pipeline.registry, err = startRegistry(); err != nil {
		return err
	}
	return b.exec(ctx, createOrders)
}

func (p *pipeline) close() error {
	if p.client != nil {
		p.client.Close()
	}
	if p.registry != nil {
		return p.registry.server.Close()
	}
	return nil
}

func (b *bench) createTopic(ctx context.Context, name string, partitions int32) error {
	if _, err := b.pipeline.admin.CreateTopic(ctx, partitions, 1, nil, name); err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return nil
}

// deleteTopics also gives back what they take of the disk.
func (b *bench) deleteTopics(ctx context.Context, names ...string) error {
	responses, err := b.pipeline.admin.DeleteTopics(ctx, names...)
	return errors.Join(err, responses.Error())
}

// What a change of an order does to its key.
const (
	dropping = "invalidate"
	setting  = "warm"
)

// kafkaConfig is that of a service which reads one topic.
func (b *bench) kafkaConfig(topic, group, onChange string, more ...string) string {
	return fmt.Sprintf(`source:
  kafka:
    brokers: [%q]
    group: %s
    topics: [%s]
    schema_registry: %s
%sentries:
  order:
    key: %s
    table: %s
    on_change: %s
`, b.pipeline.kafka.Brokers(), group, topic, b.pipeline.registry.url, strings.Join(more, ""), orderKey, orderTable, onChange)
}

// newGroup returns the name of a group that has read the topic, which is empty so
// far, to its end: what a first start sweeps is not what is measured.
func (b *bench) newGroup(ctx context.Context, topic, onChange string) (group string, err error) {
	b.groups++
	group = fmt.Sprintf("bench_%d", b.groups)
	s, err := b.startService(ctx, b.kafkaConfig(topic, group, onChange))
	if err != nil {
		return "", err
	}
	err = s.ready(ctx)
	if err := errors.Join(err, s.stop()); err != nil {
		return "", fmt.Errorf("first start of group %s: %w", group, err)
	}
	return group, nil
}

// newGroups returns n of them.
func (b *bench) newGroups(ctx context.Context, n int, topic, onChange string) ([]string, error) {
	groups := make([]string, n)
	for i := range groups {
		var err error
		if groups[i], err = b.newGroup(ctx, topic, onChange); err != nil {
			return nil, err
		}
	}
	return groups, nil
}

// A backlog is what services needed for one, from the first change that showed.
type backlog struct {
	drained
	changes int     // from then on
	start   float64 // seconds from the start of the service to then
	memory  float64 // MB, at most
	set     float64 // hundredths of all changes
}

// setMin is how much of a backlog must be set, in hundredths. The last transaction
// of what a partition has at hand at a time may go on, so it only drops.
const setMin = 99.5

// catchUp has services apply what is in a topic, and returns when all of it is
// committed to their group.
func (b *bench) catchUp(ctx context.Context, instances int, topic, group, onChange string, changes int) (l backlog, err error) {
	ends, err := b.pipeline.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return l, err
	}
	services := make([]*service, instances)
	for i := range services {
		if services[i], err = b.startService(ctx, b.kafkaConfig(topic, group, onChange)); err != nil {
			return l, err
		}
	}
	began := services[0].began
	defer func() {
		for _, s := range services {
			if err = errors.Join(err, s.stop()); err != nil {
				err = fmt.Errorf("%w\n%s", err, s.log.String())
			}
		}
	}()

	var first time.Time
	var before cpuTimes
	var early, applied, set, dropped uint64
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for applied < uint64(changes) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return l, ctx.Err()
		}
		applied, set, dropped = 0, 0, 0
		for _, s := range services {
			select {
			case <-s.ended:
				return l, fmt.Errorf("unstale ended early: %w\n%s", errors.Join(s.err, errShort), s.log.String())
			default:
			}
			if status, err := readStatus(ctx, s.address); err == nil {
				applied += status.Changes
				set += status.Set
				dropped += status.Dropped
			}
		}
		if first.IsZero() && applied > 0 {
			first, early = time.Now(), applied
			if before, err = b.cpuOf(services); err != nil {
				return l, err
			}
		}
	}
	if err := b.awaitCommitted(ctx, group, ends); err != nil {
		return l, err
	}
	l.start = first.Sub(began).Seconds()
	l.seconds = time.Since(first).Seconds()
	l.changes = changes - int(early)
	after, err := b.cpuOf(services)
	if err != nil {
		return l, err
	}
	l.cpu = after.since(before)
	for _, s := range services {
		peak, err := peakMemory(s.pid())
		if err != nil {
			return l, err
		}
		l.memory = max(l.memory, peak)
	}
	l.set = 100 * float64(set) / float64(changes)
	if set+dropped != uint64(changes) || onChange == setting && l.set < setMin {
		return l, fmt.Errorf("%d of %d changes were set, %d dropped: %w", set, changes, dropped, errShort)
	}
	return l, nil
}

// cpuOf reads the processor times with the services as the reader.
func (b *bench) cpuOf(services []*service) (t cpuTimes, err error) {
	if t, err = b.cpuNow(); err != nil {
		return t, err
	}
	t.reader = 0
	for _, s := range services {
		_, used, err := processTime(strconv.Itoa(s.pid()))
		if err != nil {
			return t, err
		}
		t.reader += used
	}
	return t, nil
}

// awaitCommitted waits until the group has committed the ends.
func (b *bench) awaitCommitted(ctx context.Context, group string, ends kadm.ListedOffsets) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		committed, err := b.pipeline.admin.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		behind := false
		ends.Each(func(end kadm.ListedOffset) {
			at, ok := committed.Lookup(end.Topic, end.Partition)
			behind = behind || end.Offset > 0 && (!ok || at.At < end.Offset)
		})
		if !behind {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readBare has a plain client read the topic and do nothing.
func (b *bench) readBare(ctx context.Context, topic string, changes int) (d drained, err error) {
	before, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.pipeline.kafka.Brokers()), kgo.ConsumeTopics(topic))
	if err != nil {
		return d, err
	}
	defer client.Close()
	var first time.Time
	early := 0
	for read := 0; read < changes; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return d, err
		}
		read += fetches.NumRecords()
		if first.IsZero() && read > 0 {
			first, early = time.Now(), read
		}
	}
	d.seconds = time.Since(first).Seconds() * float64(changes) / float64(max(changes-early, 1))
	after, err := b.cpuNow()
	d.cpu = after.since(before)
	return d, err
}

// control has the hand-written consumer apply some of the topic.
func (b *bench) control(ctx context.Context, topic string, changes int) (d drained, err error) {
	binary, err := b.build(ctx, "control", b.controlDir, ".")
	if err != nil {
		return d, err
	}
	b.groups++
	keys, err := b.rdb.DBSize(ctx).Result()
	if err != nil {
		return d, err
	}
	before, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	cmd := exec.CommandContext(ctx, binary, "-brokers", b.pipeline.kafka.Brokers(), "-topic", topic, "-group", fmt.Sprintf("bench_%d", b.groups),
		"-registry", b.pipeline.registry.url, "-redis", b.redis.Addr(), "-prefix", orderPrefix, "-changes", strconv.Itoa(changes))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return d, fmt.Errorf("control: %w", err)
	}
	if d.seconds, err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64); err != nil {
		return d, err
	}
	after, err := b.cpuNow()
	if err != nil {
		return d, err
	}
	d.cpu = after.since(before)
	d.cpu.reader = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return d, b.expectKeys(ctx, keys-int64(changes))
}

// findControl finds the folder of the control's module.
func findControl() (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/unstale/unstale/test/bench").Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of the control: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "control"), nil
}

// benchKafka applies a backlog of Debezium's records.
func benchKafka(ctx context.Context, b *bench) error {
	if err := b.startKafka(ctx); err != nil {
		return err
	}
	var err error
	if b.controlDir, err = findControl(); err != nil {
		return err
	}
	if _, err := b.build(ctx, "control", b.controlDir, "."); err != nil {
		return err
	}
	runs := b.sizes.Runs
	topics := []struct {
		name    string
		as      converter
		changes int
		groups  []string
	}{
		{"bench.avro", avroConverter, b.sizes.Records, nil},
		{"bench.json", jsonConverter, b.sizes.Records / 2, nil},
		{"bench.json_schemas", jsonSchemasConverter, b.sizes.Records / 5, nil},
	}
	var setGroups []string
	for i := range topics {
		t := &topics[i]
		if err := b.createTopic(ctx, t.name, partitions); err != nil {
			return err
		}
		if t.groups, err = b.newGroups(ctx, runs, t.name, dropping); err != nil {
			return err
		}
		if i == 0 {
			if setGroups, err = b.newGroups(ctx, runs, t.name, setting); err != nil {
				return err
			}
		}
		b.say(fmt.Sprintf("writing %s records in %s", thousands(int64(t.changes)), t.as.name))
		w, err := b.newWriter(ctx, t.name, t.as)
		if err != nil {
			return err
		}
		err = w.write(ctx, t.changes)
		w.close()
		if err != nil {
			return err
		}
	}
	avro, json, jsonSchemas := &topics[0], &topics[1], &topics[2]

	drop := func(topic, group string, changes int) (l backlog, err error) {
		left, err := b.fill(ctx, orderPrefix, changes)
		if err != nil {
			return l, err
		}
		if l, err = b.catchUp(ctx, 1, topic, group, dropping, changes); err != nil {
			return l, err
		}
		return l, b.expectKeys(ctx, left)
	}
	var bares, controls []drained
	var drops, sets, jsons, jsonSchemass []backlog
	for i := range runs {
		b.say(fmt.Sprintf("catching up, run %d of %d", i+1, runs))
		bare, err := b.readBare(ctx, avro.name, avro.changes)
		if err != nil {
			return err
		}
		dropped, err := drop(avro.name, avro.groups[i], avro.changes)
		if err != nil {
			return err
		}
		if _, err := b.fill(ctx, orderPrefix, avro.changes); err != nil {
			return err
		}
		control, err := b.control(ctx, avro.name, b.sizes.ControlRecords)
		if err != nil {
			return err
		}
		if _, err := b.unlinkAll(ctx, orderPrefix, avro.changes); err != nil {
			return err
		}
		set, err := b.catchUp(ctx, 1, avro.name, setGroups[i], setting, avro.changes)
		if err != nil {
			return err
		}
		if err := b.expectOrders(ctx, avro.changes, set.set); err != nil {
			return err
		}
		if _, err := b.unlinkAll(ctx, orderPrefix, avro.changes); err != nil {
			return err
		}
		plain, err := drop(json.name, json.groups[i], json.changes)
		if err != nil {
			return err
		}
		withSchemas, err := drop(jsonSchemas.name, jsonSchemas.groups[i], jsonSchemas.changes)
		if err != nil {
			return err
		}
		bares, controls = append(bares, bare), append(controls, control)
		drops, sets, jsons, jsonSchemass = append(drops, dropped), append(sets, set), append(jsons, plain), append(jsonSchemass, withSchemas)
	}

	rates := func(runs []backlog) []float64 {
		return eachBacklog(runs, func(l backlog) float64 { return float64(l.changes) / l.seconds })
	}
	bareRates := each(bares, func(d drained) float64 { return float64(avro.changes) / d.seconds })
	controlRates := each(controls, func(d drained) float64 { return float64(b.sizes.ControlRecords) / d.seconds })
	name := fmt.Sprintf("kafka: %s records", thousands(int64(avro.changes)))
	b.report.add("kafka: dropped", "changes/s", rates(drops), "bare franz-go consumer", bareRates, numberAtLeast(300_000))
	b.report.add("kafka: set", "changes/s", rates(sets), "bare franz-go consumer", bareRates, numberAtLeast(150_000))
	b.report.add("kafka: set, of all changes", "%", eachBacklog(sets, func(l backlog) float64 { return l.set }), "", nil, nil)
	b.report.add("kafka: dropped", "changes/s", rates(drops), "confluent-kafka-go, goavro, one at a time", controlRates, ratioAtLeast(50))
	b.report.add("kafka: dropped, JSON", "changes/s", rates(jsons), "Avro", rates(drops), ratioAtLeast(0.33))
	b.report.add("kafka: dropped, JSON with schemas", "changes/s", rates(jsonSchemass), "Avro", rates(drops), ratioAtLeast(0.33))
	b.report.add("kafka: from start to first change", "s", eachBacklog(drops, func(l backlog) float64 { return l.start }), "", nil, nil)
	b.report.add(name+" behind, peak memory, dropping", "MB", eachBacklog(drops, func(l backlog) float64 { return l.memory }), "", nil, below(150, "MB"))
	b.report.add(name+" behind, peak memory, setting", "MB", eachBacklog(sets, func(l backlog) float64 { return l.memory }), "", nil, below(150, "MB"))
	b.report.add("kafka: JSON with schemas, peak memory", "MB", eachBacklog(jsonSchemass, func(l backlog) float64 { return l.memory }), "", nil, below(150, "MB"))
	b.cost("kafka: bare franz-go consumer", avro.changes, bares)
	b.costOf("kafka: dropped", drops)
	b.costOf("kafka: set", sets)
	b.cost("kafka: confluent-kafka-go, goavro", b.sizes.ControlRecords, controls)
	b.costOf("kafka: dropped, JSON", jsons)
	b.costOf("kafka: dropped, JSON with schemas", jsonSchemass)
	return b.deleteTopics(ctx, avro.name, json.name, jsonSchemas.name)
}

func eachBacklog(runs []backlog, value func(backlog) float64) []float64 {
	values := make([]float64, len(runs))
	for i, run := range runs {
		values[i] = value(run)
	}
	return values
}

// costOf reports the processor time of backlogs, divided by their changes.
func (b *bench) costOf(what string, runs []backlog) {
	drains := make([]drained, len(runs))
	for i, run := range runs {
		drains[i] = run.drained
	}
	b.cost(what, runs[len(runs)/2].changes, drains)
}

// unlinkAll drops the keys of the rows 1 to n, and returns how many others there are.
func (b *bench) unlinkAll(ctx context.Context, prefix string, n int) (others int64, err error) {
	for next := 1; next <= n; {
		pipe := b.rdb.Pipeline()
		for range min(pipelineCommands, n-next+1) {
			pipe.Unlink(ctx, prefix+strconv.Itoa(next))
			next++
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return 0, err
		}
	}
	return b.rdb.DBSize(ctx).Result()
}

// expectOrders demands that as many rows are cached as were set, and a hundred of
// them as PostgreSQL would have them.
func (b *bench) expectOrders(ctx context.Context, n int, set float64) error {
	cached := 0
	for next := 1; next <= n; {
		pipe := b.rdb.Pipeline()
		var found []*redis.IntCmd
		for range min(pipelineCommands, n-next+1) {
			found = append(found, pipe.Exists(ctx, orderPrefix+strconv.Itoa(next)))
			next++
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		for _, one := range found {
			cached += int(one.Val())
		}
	}
	if want := int(math.Round(set / 100 * float64(n))); cached != want {
		return fmt.Errorf("%d orders are cached, want %d: %w", cached, want, errShort)
	}
	for id := int64(1); id <= int64(n); id += max(1, int64(n)/100) {
		got, err := b.rdb.Get(ctx, orderPrefix+strconv.FormatInt(id, 10)).Result()
		if errors.Is(err, redis.Nil) {
			continue // one that was dropped
		}
		if err != nil {
			return err
		}
		if want := orderRow(id); got != want {
			return fmt.Errorf("order %d is cached as\n%s, want\n%s", id, got, want)
		}
	}
	return nil
}

// benchKafkaInstances has one, two and three services share a topic, and kills one.
func benchKafkaInstances(ctx context.Context, b *bench) error {
	if err := b.startKafka(ctx); err != nil {
		return err
	}
	const topic, instancesMax = "bench.instances", 3
	if err := b.createTopic(ctx, topic, partitions); err != nil {
		return err
	}
	groups, err := b.newGroups(ctx, b.sizes.Runs*instancesMax, topic, dropping)
	if err != nil {
		return err
	}
	w, err := b.newWriter(ctx, topic, avroConverter)
	if err != nil {
		return err
	}
	defer w.close()
	b.say(fmt.Sprintf("writing %s records", thousands(int64(b.sizes.Records))))
	if err := w.write(ctx, b.sizes.Records); err != nil {
		return err
	}
	var by [instancesMax][]backlog
	for i := range b.sizes.Runs {
		for n := range by {
			b.say(fmt.Sprintf("%d instances, run %d of %d", n+1, i+1, b.sizes.Runs))
			left, err := b.fill(ctx, orderPrefix, b.sizes.Records)
			if err != nil {
				return err
			}
			one, err := b.catchUp(ctx, n+1, topic, groups[i*instancesMax+n], dropping, b.sizes.Records)
			if err != nil {
				return err
			}
			if err := b.expectKeys(ctx, left); err != nil {
				return err
			}
			by[n] = append(by[n], one)
		}
	}
	rate := func(l backlog) float64 { return float64(l.changes) / l.seconds }
	used := func(l backlog) float64 { return l.cpu.reader.Seconds() * 1e6 / float64(l.changes) }
	for n := 1; n < instancesMax; n++ {
		b.report.add(fmt.Sprintf("kafka: %d instances", n+1), "changes/s", eachBacklog(by[n], rate), "one", eachBacklog(by[0], rate), nil)
		b.report.add(fmt.Sprintf("kafka: processor time of %d instances", n+1), "µs a change", eachBacklog(by[n], used), "one", eachBacklog(by[0], used), nil)
	}
	var took []float64
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("taking over, run %d of %d", i+1, b.sizes.Runs))
		seconds, err := b.takeOver(ctx, topic, groups[i*instancesMax], w)
		if err != nil {
			return err
		}
		took = append(took, seconds)
	}
	b.report.add("kafka: takeover after kill -9", "s", took, "the session timeout", []float64{sessionTimeout.Seconds()},
		below(sessionTimeout.Seconds()+1, "s"))
	return b.deleteTopics(ctx, topic)
}

// sessionTimeout is the least that a broker takes by default.
const sessionTimeout = 6 * time.Second

// takeOver kills one of two instances and returns how long it took until changes in
// each partition were applied again.
func (b *bench) takeOver(ctx context.Context, topic, group string, w *writer) (seconds float64, err error) {
	config := b.kafkaConfig(topic, group, dropping, fmt.Sprintf("    session_timeout: %s\n", sessionTimeout))
	var services [2]*service
	for i := range services {
		if services[i], err = b.startService(ctx, config); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, services[i].stop()) }()
		if err := services[i].ready(ctx); err != nil {
			return 0, err
		}
	}
	for _, s := range services { // the first has given some away
		if err := s.until(ctx, 20*time.Millisecond, func(s *admin.Status) bool { return s.Ready && len(s.Streams) == partitions/len(services) }); err != nil {
			return 0, err
		}
	}
	// Both work: a round through every partition.
	if _, err := b.applyRound(ctx, w); err != nil {
		return 0, err
	}
	victim := services[1]
	began := time.Now()
	victim.kill()
	victim.err = nil // as wanted
	if _, err := b.applyRound(ctx, w); err != nil {
		return 0, err
	}
	return time.Since(began).Seconds(), nil
}

// applyRound writes changes of enough rows to meet every partition, and waits until
// their keys are gone.
func (b *bench) applyRound(ctx context.Context, w *writer) (took time.Duration, err error) {
	const rows = 20 * partitions
	others, err := b.fill(ctx, orderPrefix, rows)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := w.write(ctx, rows); err != nil {
		return 0, err
	}
	for {
		keys, err := b.rdb.DBSize(ctx).Result()
		if err != nil {
			return 0, err
		}
		if keys == others {
			return time.Since(began), nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// benchKafkaPartitions has a trickle of changes go through very many partitions, and
// counts the scripts that it costs.
func benchKafkaPartitions(ctx context.Context, b *bench) (err error) {
	const topic, many, perSecond = "bench.partitions", 500, 100
	if err := b.startKafka(ctx); err != nil {
		return err
	}
	if err := b.createTopic(ctx, topic, many); err != nil {
		return err
	}
	w, err := b.newWriter(ctx, topic, avroConverter)
	if err != nil {
		return err
	}
	defer w.close()
	b.groups++
	s, err := b.startService(ctx, b.kafkaConfig(topic, fmt.Sprintf("bench_%d", b.groups), dropping))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.ready(ctx); err != nil {
		return err
	}
	b.say(fmt.Sprintf("ready with %d partitions after %.1f s", many, time.Since(s.began).Seconds()))

	var quiet, busy, each, used, idle []float64
	seconds := b.sizes.LatencySecs
	for i := range b.sizes.Runs {
		b.say(fmt.Sprintf("a trickle through %d partitions, run %d of %d", many, i+1, b.sizes.Runs))
		scripts, cpu, err := b.scriptsDuring(ctx, s, func() error {
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			return err
		}
		quiet, idle = append(quiet, scripts/float64(seconds)), append(idle, cpu.Seconds()/float64(seconds)*100)
		changes := seconds * perSecond
		status, err := readStatus(ctx, s.address)
		if err != nil {
			return err
		}
		want := status.Changes + uint64(changes)
		scripts, cpu, err = b.scriptsDuring(ctx, s, func() error {
			tick := time.NewTicker(time.Second / perSecond)
			defer tick.Stop()
			for id := range int64(changes) {
				<-tick.C
				w.client.Produce(ctx, w.record(id+1), nil)
			}
			if err := w.client.Flush(ctx); err != nil {
				return err
			}
			return s.until(ctx, 10*time.Millisecond, func(s *admin.Status) bool { return s.Changes >= want })
		})
		if err != nil {
			return err
		}
		busy, each = append(busy, scripts/float64(seconds)), append(each, scripts/float64(changes))
		used = append(used, cpu.Seconds()/float64(seconds)*100)
	}
	peak, err := peakMemory(s.pid())
	if err != nil {
		return err
	}
	name := fmt.Sprintf("kafka: %d partitions", many)
	b.report.add(name+", no traffic: scripts", "a second", quiet, "", nil, &goal{"0", func(r *result) bool { return r.Ours == 0 }})
	b.report.add(fmt.Sprintf("%s, %d changes/s: scripts", name, perSecond), "a second", busy, "", nil, nil)
	b.report.add(fmt.Sprintf("%s, %d changes/s: scripts", name, perSecond), "a change", each, "", nil, &goal{"1 or less", func(r *result) bool { return r.Ours <= 1 }})
	b.report.add(name+", no traffic: service", "% of a core", idle, "", nil, nil)
	b.report.add(fmt.Sprintf("%s, %d changes/s: service", name, perSecond), "% of a core", used, "", nil, nil)
	b.report.add(name+": peak memory", "MB", []float64{peak}, "", nil, below(150, "MB"))
	return b.deleteTopics(ctx, topic)
}

// scriptsDuring counts the scripts that Redis runs meanwhile, and what the service
// uses of the processor.
func (b *bench) scriptsDuring(ctx context.Context, s *service, do func() error) (scripts float64, used time.Duration, err error) {
	before, err := b.scripts(ctx)
	if err != nil {
		return 0, 0, err
	}
	_, cpu, err := processTime(strconv.Itoa(s.pid()))
	if err != nil {
		return 0, 0, err
	}
	if err := do(); err != nil {
		return 0, 0, err
	}
	after, err := b.scripts(ctx)
	if err != nil {
		return 0, 0, err
	}
	_, used, err = processTime(strconv.Itoa(s.pid()))
	return after - before, used - cpu, err
}

// scripts is how many Redis has run.
func (b *bench) scripts(ctx context.Context) (calls float64, err error) {
	text, err := b.rdb.Info(ctx, "commandstats").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if fields, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			number, _, _ := strings.Cut(fields, ",")
			return strconv.ParseFloat(number, 64)
		}
	}
	return 0, nil
}
