package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/stack"
	"github.com/unstale/unstale/test/chaos/engine"
)

// sessionTimeout is the shortest that a broker allows by default.
const sessionTimeout = 6 * time.Second

// A topicTrial is instances of one group under load, in which something is going
// to break.
type topicTrial struct {
	*topicFixture
	instances []*instance
	traffic   *engine.Traffic
	// configure changes the configuration of the instances.
	configure func(string) string
}

// topicTrialOptions say what is not as usual.
type topicTrialOptions struct {
	format    format
	redis     map[string]string // settings
	pipeline  func(*testing.T) pipeline
	told      map[string]string // settings of the connector
	configure func(*topicFixture, string) string
	seldom    bool // Connect notes seldom what it has sent
}

// trialsAtOnce lets a few trials run side by side: each has a load, and a connector
// that reads the log of all.
var trialsAtOnce = make(chan struct{}, 3)

// newTopicTrial starts an instance and load, and returns when both work.
func newTopicTrial(t *testing.T, options topicTrialOptions) *topicTrial {
	t.Helper()
	trialsAtOnce <- struct{}{}
	t.Cleanup(func() { <-trialsAtOnce })
	if options.pipeline == nil {
		options.pipeline = usePipeline
	}
	f := newTopicFixtureOn(t, sharedPostgres(t, 15), startRedis(t, stack.RedisOptions{Settings: options.redis}), options.pipeline(t), options.format)
	f.followed, f.told, f.seldom = []string{"items"}, options.told, options.seldom
	f.exec(sentinels)
	follower := &follower{follow: f.follow}
	traffic, err := engine.NewTraffic(within(t, 30*time.Second), engine.TrafficOptions{
		Database: f.url, Redis: &redis.Options{Addr: f.redis.Addr()}, Slot: f.slot, Seed: 1,
		Rows: 16, Writers: 2, Readers: 2, Pause: 20 * time.Millisecond, ReadPause: 50 * time.Millisecond, Keeps: true, Follow: follower.wait,
	})
	check(t, err)
	t.Cleanup(traffic.Close)
	if f.told["snapshot.mode"] == "no_data" {
		// Nothing is written before the first change.
		replies, err := f.admin().CreateTopics(within(t, 10*time.Second), 3, 1, nil, f.slot+".public.items")
		check(t, errors.Join(err, replies.Error()))
	}
	f.connectDebezium()
	tr := &topicTrial{topicFixture: f, traffic: traffic}
	tr.configure = func(text string) string {
		if options.configure != nil {
			text = options.configure(f, text)
		}
		return text
	}
	tr.join().waitReady()
	traffic.Start()
	tr.commits(50)
	return tr
}

// join starts one more instance.
func (tr *topicTrial) join() *instance {
	tr.t.Helper()
	config := strings.Replace(tr.config(engine.KeepEntries), "\n    group:", fmt.Sprintf("\n    session_timeout: %s\n    group:", sessionTimeout), 1)
	i := startInstance(tr.t, tr.configure(config))
	tr.instances = append(tr.instances, i)
	return i
}

// commits waits until the load has committed n times more.
func (tr *topicTrial) commits(n int64) {
	tr.t.Helper()
	if err := tr.traffic.AwaitCommits(within(tr.t, time.Minute), n); err != nil {
		tr.t.Fatalf("%v\n%s", err, tr.logs())
	}
}

func (tr *topicTrial) logs() string {
	var b strings.Builder
	for n, i := range tr.instances {
		fmt.Fprintf(&b, "instance %d:\n%s\n", n, i.log)
	}
	return b.String()
}

// streams returns how many partitions an instance has; none while it does not
// stream.
func (i *instance) streams() int {
	s, err := i.status()
	if err != nil || s.State != "streaming" || !s.Ready {
		return 0
	}
	return len(s.Streams)
}

// awaitShares waits until the partitions are spread like that over the instances.
func (tr *topicTrial) awaitShares(what string, instances []*instance, want ...int) {
	tr.t.Helper()
	deadline := time.After(time.Minute)
	for {
		var shares []int
		for _, i := range instances {
			shares = append(shares, i.streams())
		}
		slices.Sort(shares)
		if slices.Equal(shares, want) {
			return
		}
		select {
		case <-deadline:
			tr.t.Fatalf("%s: the partitions are spread as %d, want %d\n%s", what, shares, want, tr.logs())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// right ends the load and demands that every cached value equals its row, that
// nothing older was shown than had settled, that the cache is not empty and that
// memory was bounded.
func (tr *topicTrial) right() {
	t := tr.t
	t.Helper()
	tr.commits(50)
	v, err := tr.traffic.Quiet(within(t, 150*time.Second))
	if err = errors.Join(err, v.Err()); err != nil {
		t.Errorf("%v\n%s", err, tr.logs())
	}
	t.Log(v)
	for n, i := range tr.instances {
		t.Logf("instance %d: %v keys set, %v dropped that a change could have set", n, i.metric("unstale_keys_set_total"), i.metric("unstale_keys_doubted_total"))
		if peak := i.residentMax(); peak > memoryMax {
			t.Errorf("took %d MB at its peak, want at most %d", peak>>20, memoryMax>>20)
		}
	}
}

func (tr *topicTrial) topic() string { return tr.slot + ".public.items" }

// A kill -9 of the only instance: the next one goes on where Redis is, and loses
// nothing.
func TestKafkaInstanceIsKilled(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{})
	i := tr.instances[0]
	for range 2 {
		i.kill()
		tr.commits(50)
		i.start()
		// The group waits for the session of the one that is gone.
		i.waitReady()
		tr.commits(50)
	}
	tr.right()
	if got := i.gaps(); got != 0 {
		t.Errorf("found %d gaps\n%s", got, i.log)
	}
}

// Instances come and go in the middle of batches.
func TestKafkaRebalances(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{})
	first := tr.instances[0]
	tr.awaitShares("one", tr.instances, 3)
	second := tr.join()
	tr.awaitShares("two", tr.instances, 1, 2)
	tr.commits(50)
	third := tr.join()
	tr.awaitShares("three", tr.instances, 1, 1, 1)
	tr.commits(50)
	second.stop()
	left := time.Now()
	tr.awaitShares("the second has left", []*instance{first, third}, 1, 2)
	t.Logf("what the second had was taken over %s after its end", time.Since(left).Round(time.Millisecond))
	tr.commits(50)
	third.kill()
	killed := time.Now()
	first.waitStatus("it has what the third had", func(s *admin.Status) bool { return s.State == "streaming" && len(s.Streams) == 3 })
	took := time.Since(killed)
	tr.awaitShares("the third was killed", []*instance{first}, 3)
	t.Logf("what the third had was taken over %s after it was killed, with a session timeout of %s; all was caught up after %s", took.Round(time.Millisecond), sessionTimeout, time.Since(killed).Round(time.Millisecond))
	// On a machine with nothing else to do it takes no second more: the bench measures that.
	if took > sessionTimeout+10*time.Second {
		t.Errorf("that took too long\n%s", tr.logs())
	}
	tr.instances = []*instance{first}
	tr.right()
	if got := first.gaps(); got != 1 { // the first start
		t.Errorf("found %d gaps\n%s", got, first.log)
	}
}

// An instance that is frozen for longer than its session, and wakes up with
// batches in hand, is fenced. Whoever has its partitions is not disturbed.
func TestKafkaZombie(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{})
	zombie, other := tr.instances[0], tr.join()
	tr.awaitShares("two", tr.instances, 1, 2)
	tr.commits(50)
	check(t, zombie.cmd.Process.Signal(syscall.SIGSTOP))
	tr.awaitShares("the other has all", []*instance{other}, 3)
	tr.commits(50)
	check(t, zombie.cmd.Process.Signal(syscall.SIGCONT))
	tr.awaitShares("the zombie is back", tr.instances, 1, 2)
	tr.commits(50)
	tr.right()
	if got := other.lines("taking the stream over again"); got > 0 {
		t.Errorf("the other was disturbed %d times\n%s", got, tr.logs())
	}
	t.Logf("the zombie took the stream over again %d times", zombie.lines("taking the stream over again"))
	if got := other.gaps(); got != 0 {
		t.Errorf("found %d gaps\n%s", got, other.log)
	}
}

// A Redis that restarts on a file which lacks the last second gets that second
// again: the offsets are read where its watermarks are.
func TestKafkaRedisIsKilled(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{redis: appendOnly})
	i := tr.instances[0]
	check(t, tr.redis.Kill())
	i.awaitLine("holding", "server=redis")
	tr.commits(50)
	tr.traffic.NewEra()
	check(t, tr.redis.Start(within(t, 30*time.Second)))
	i.awaitLine("going on", "server=redis")
	i.waitReady()
	tr.right()
	if got := i.gaps(); got != 1 { // the first start
		t.Errorf("found %d gaps\n%s", got, i.log)
	}
}

// A Redis that is emptied is found to be, and swept.
func TestKafkaRedisIsEmptied(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{})
	i := tr.instances[0]
	tr.traffic.NewEra()
	check(t, tr.rdb.FlushAll(within(t, 10*time.Second)).Err())
	i.waitStatus("the loss is found", func(s *admin.Status) bool { return s.Ready && s.Gaps == 2 })
	tr.right()
	if got := i.metric(`unstale_gaps_total{cause="emptied"}`); got != 1 {
		t.Errorf("counted %v\n%s", got, i.log)
	}
}

// A task that has failed and is restarted goes on from the slot.
func TestKafkaTaskFails(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{told: map[string]string{"errors.max.retries": "0", "slot.drop.on.stop": "false"}})
	tr.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", tr.slot)
	tr.eventually("the task has failed", func() bool { return tr.taskStateNow() == "FAILED" })
	tr.commits(50)
	tr.rest(http.MethodPost, "/connectors/"+tr.slot+"/restart?includeTasks=true&onlyFailed=true", nil, nil)
	tr.eventually("the task runs", func() bool { return tr.taskStateNow() == "RUNNING" })
	tr.right()
	if got := tr.instances[0].gaps(); got != 1 { // the first start
		t.Errorf("found %d gaps\n%s", got, tr.instances[0].log)
	}
}

// While changes stream a topic gets more partitions: keys move from one to
// another, and nothing goes back.
func TestKafkaPartitionsAreAdded(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{told: map[string]string{"producer.override.metadata.max.age.ms": "500"}})
	tr.join()
	tr.awaitShares("two", tr.instances, 1, 2)
	replies, err := tr.admin().UpdatePartitions(within(t, 10*time.Second), 5, tr.topic())
	check(t, errors.Join(err, replies.Error()))
	tr.awaitShares("all five have somebody", tr.instances, 2, 3)
	tr.commits(100)
	tr.right()
}

// What retention has taken from under a stopped instance is a gap.
func TestKafkaRetentionPassesAStoppedInstance(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{})
	i := tr.instances[0]
	i.stop()
	tr.commits(50)
	check(t, tr.sent(within(t, time.Minute)))
	ends, err := tr.admin().ListEndOffsets(within(t, 10*time.Second), tr.topic())
	check(t, err)
	var to kadm.Offsets
	ends.Each(func(o kadm.ListedOffset) { to.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.Offset}) })
	_, err = tr.admin().DeleteRecords(within(t, 10*time.Second), to)
	check(t, err)
	i.start()
	i.waitReady()
	tr.right()
	if got := i.metric(`unstale_gaps_total{cause="slot_ahead"}`); got != 1 {
		t.Errorf("counted %v\n%s", got, i.log)
	}
}

// A topic that was deleted and made anew is another: what was in the old one and
// was not read is lost.
func TestKafkaTopicIsMadeAnew(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{told: map[string]string{"producer.override.metadata.max.age.ms": "500"}})
	i := tr.instances[0]
	// Until the loss is found nothing can be said of what was committed.
	tr.losing.Store(true)
	_, err := tr.admin().DeleteTopics(within(t, 10*time.Second), tr.topic())
	check(t, err)
	tr.eventually("it is made anew", func() bool {
		replies, err := tr.admin().CreateTopics(within(t, 10*time.Second), 3, 1, nil, tr.topic())
		return err == nil && replies.Error() == nil
	})
	i.waitStatus("the loss is found", func(s *admin.Status) bool { return s.Ready && s.Gaps == 2 })
	tr.traffic.NewEra()
	tr.losing.Store(false)
	tr.right()
}

// A person sets the offsets of a group that is not running. Back, what comes again
// drops its keys and sets none; forward, what lies between is lost.
func TestKafkaOffsetsAreSetByAPerson(t *testing.T) {
	t.Parallel()
	tr := newTopicTrial(t, topicTrialOptions{})
	i := tr.instances[0]
	set := func(at func(start, end int64) int64) (records int64) {
		t.Helper()
		starts, err := tr.admin().ListStartOffsets(within(t, 10*time.Second), tr.topic())
		check(t, err)
		ends, err := tr.admin().ListEndOffsets(within(t, 10*time.Second), tr.topic())
		check(t, err)
		var to kadm.Offsets
		ends.Each(func(o kadm.ListedOffset) {
			start, _ := starts.Lookup(o.Topic, o.Partition)
			to.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: at(start.Offset, o.Offset), LeaderEpoch: -1})
			records += o.Offset - start.Offset
		})
		replies, err := tr.admin().CommitOffsets(within(t, 10*time.Second), tr.slot, to)
		check(t, errors.Join(err, replies.Error()))
		return records
	}
	// All is applied, and the writers rest: whatever is SET from here on comes again.
	_, err := tr.traffic.Quiet(within(t, time.Minute))
	check(t, err)
	i.stop()
	records := set(func(start, _ int64) int64 { return start })
	i.start()
	i.waitReady()
	i.eventually("all came again", func() bool { return i.metric("unstale_changes_total") >= float64(records)/2 })
	s, err := i.status()
	check(t, err)
	t.Logf("%d records again: %d keys dropped, %d set, %d of those dropped could have been set", records, s.Dropped, s.Set, int(i.metric("unstale_keys_doubted_total")))
	if s.Set > 0 || s.Dropped == 0 {
		t.Errorf("what came again has dropped %d keys and set %d\n%s", s.Dropped, s.Set, i.log)
	}
	tr.traffic.Start()
	tr.right()

	i.stop()
	tr.traffic.Start()
	tr.commits(50)
	check(t, tr.sent(within(t, time.Minute)))
	set(func(_, end int64) int64 { return end })
	i.start()
	i.waitReady()
	tr.right()
	if got := i.metric(`unstale_gaps_total{cause="slot_ahead"}`); got != 1 {
		t.Errorf("counted %v\n%s", got, i.log)
	}
}

// Connect that is killed sends again what it had sent since it noted its offsets
// last, under new offsets. That drops keys, and sets nothing back.
func TestKafkaConnectIsKilled(t *testing.T) {
	t.Parallel()
	shared := usePipeline(t)
	tr := newTopicTrial(t, topicTrialOptions{
		// Without a note it would read every table anew; so it reads the log again from
		// where the slot is.
		seldom: true, told: map[string]string{"slot.drop.on.stop": "false", "snapshot.mode": "no_data"},
		pipeline: func(t *testing.T) pipeline {
			own := shared
			var err error
			own.connect, err = servers.Connect(within(t, 3*time.Minute), stack.ConnectOptions{
				Kafka: shared.kafka, Registry: shared.registry, Settings: map[string]string{"offset.flush.interval.ms": "60000"},
			})
			check(t, err)
			check(t, own.watch())
			return own
		},
	})
	i := tr.instances[0]
	tr.commits(200)
	i.eventually("some of it is in the topic", func() bool { return tr.topicEnd() > 100 })
	before := tr.topicEnd()
	check(t, tr.connect.Kill())
	tr.commits(20)
	check(t, tr.connect.Start(within(t, time.Minute)))
	tr.eventually("the task runs", func() bool { return tr.taskStateNow() == "RUNNING" })
	doubted, set := i.metric("unstale_keys_doubted_total"), i.metric("unstale_keys_set_total")
	tr.commits(200)
	i.eventually("it was sent again", func() bool { return tr.topicEnd() > before+100 })
	tr.right()
	t.Logf("%d records before the kill, %d behind it; %v keys doubted, %v set; before: %v, %v", before, tr.topicEnd()-before,
		i.metric("unstale_keys_doubted_total"), i.metric("unstale_keys_set_total"), doubted, set)
	if got := i.gaps(); got != 1 { // the first start
		t.Errorf("found %d gaps\n%s", got, i.log)
	}
}

// topicEnd is how many records were ever written.
func (tr *topicTrial) topicEnd() (n int64) {
	tr.t.Helper()
	ends, err := tr.admin().ListEndOffsets(within(tr.t, 10*time.Second), tr.topic())
	check(tr.t, err)
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

// A broker that is killed and comes back on its data has lost nothing that it had
// acknowledged.
func TestKafkaBrokerIsKilled(t *testing.T) {
	t.Parallel()
	// The worker stops the task while it has no broker, which must not take the slot away.
	keeps := map[string]string{"slot.drop.on.stop": "false"}
	tr := newTopicTrial(t, topicTrialOptions{format: jsonWithSchemas, told: keeps, pipeline: func(t *testing.T) (own pipeline) {
		var err error
		own.kafka, err = servers.Kafka(within(t, 3*time.Minute), stack.KafkaOptions{})
		check(t, err)
		own.connect, err = servers.Connect(within(t, 3*time.Minute), stack.ConnectOptions{Kafka: own.kafka, Settings: map[string]string{"offset.flush.interval.ms": "100"}})
		check(t, err)
		check(t, own.watch())
		return own
	}})
	i := tr.instances[0]
	check(t, tr.follow(within(t, time.Minute)))
	check(t, tr.kafka.Kill())
	i.awaitLine("holding", "server=source")
	check(t, tr.kafka.Start(within(t, time.Minute)))
	i.awaitLine("going on", "server=source")
	i.waitReady()
	// Connect takes its time to come back.
	began := time.Now()
	if err := tr.follow(within(t, 3*time.Minute)); err != nil {
		log, _ := os.ReadFile(tr.connect.Log())
		t.Fatalf("%v: the task is %s\n%s", err, tr.taskStateNow(), log[max(0, len(log)-6000):])
	}
	t.Logf("Connect was back %s behind the broker", time.Since(began).Round(time.Second))
	tr.right()
	if got := i.gaps(); got != 1 { // the first start
		t.Errorf("found %d gaps\n%s", got, i.log)
	}
}

// A registry that is away when a new schema comes holds what needs it, and only
// that. It goes on by itself.
func TestKafkaRegistryIsAway(t *testing.T) {
	t.Parallel()
	between := newProxy(t, usePipeline(t).registry.Addr())
	tr := newTopicTrial(t, topicTrialOptions{configure: func(f *topicFixture, config string) string {
		return strings.Replace(config, f.registry.Addr(), between.addr(), 1)
	}})
	i := tr.instances[0]
	between.cut()
	tr.exec("ALTER TABLE items ADD added int")
	tr.exec("UPDATE items SET added = 1 WHERE id = 0")
	i.awaitLine("holding a partition", "a schema cannot be had")
	tr.commits(50)
	between.heal()
	tr.right()
	if got := i.gaps(); got != 1 { // the first start
		t.Errorf("found %d gaps\n%s", got, i.log)
	}
}
