package demo

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"os/exec"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/stack"
)

const (
	// connectorName is that of Debezium's connector, topicPrefix that of its topics.
	connectorName = "shop"
	topicPrefix   = "shop"
	// flushEvery is how often Connect notes how far the connector is. The checker
	// waits for that; a minute, its default, would be long.
	flushEvery = 100 * time.Millisecond
	// settledEvery is how often the checker looks.
	settledEvery = 20 * time.Millisecond
	runningMax   = time.Minute
)

// A pipeline is what stands between the database and the service where changes
// come from Kafka: Debezium on Kafka Connect, Kafka, a schema registry.
type pipeline struct {
	kafka    *stack.Kafka
	registry *stack.Registry
	worker   *stack.Connect
	client   *connect.Client
	admin    *kadm.Client
	// last is what was reported last: whoever does not answer, as when the time is
	// over, has not changed.
	last PipelineReport
}

func startPipeline(ctx context.Context, servers *stack.Stack) (*pipeline, error) {
	p := &pipeline{}
	starting, startCtx := errgroup.WithContext(ctx)
	starting.Go(func() (err error) {
		p.kafka, err = servers.Kafka(startCtx, stack.KafkaOptions{})
		return err
	})
	starting.Go(func() (err error) {
		p.registry, err = servers.Registry(startCtx, stack.RegistryOptions{})
		return err
	})
	if err := starting.Wait(); err != nil {
		return nil, err
	}
	var err error
	p.worker, err = servers.Connect(ctx, stack.ConnectOptions{
		Kafka: p.kafka, Registry: p.registry,
		Settings: map[string]string{"offset.flush.interval.ms": fmt.Sprint(flushEvery.Milliseconds())},
	})
	if err != nil {
		return nil, err
	}
	if p.client, err = connect.NewClient(p.worker.URL(), connect.Options{}); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(p.kafka.Brokers()))
	if err != nil {
		return nil, err
	}
	p.admin = kadm.NewClient(client)
	return p, nil
}

func (p *pipeline) close() {
	p.admin.Close()
	p.client.Close()
}

// source is the part of the service's configuration that names the pipeline.
func (p *pipeline) source() string {
	return fmt.Sprintf(`source:
  kafka:
    brokers: [%q]
    topic_prefix: %s
    schema_registry: %s
    connect: {url: %s, connector: %s}
`, p.kafka.Brokers(), topicPrefix, p.registry.CompatURL(), p.worker.URL(), connectorName)
}

// apply makes the connector as anybody would: with the program itself. It returns
// when the connector runs.
func (p *pipeline) apply(ctx context.Context, executable, config string) error {
	ctx, cancel := context.WithTimeout(ctx, runningMax)
	defer cancel()
	output, err := exec.CommandContext(ctx, executable, "connector", "apply", "--config", config).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unstale connector apply: %w\n%s", err, output)
	}
	tick := time.NewTicker(settledEvery)
	defer tick.Stop()
	for {
		status, err := p.client.Status(ctx, connectorName)
		if err == nil && status.Running() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the connector does not run: %+v %v: %w", status, err, ctx.Err())
		case <-tick.C:
		}
	}
}

// settled waits until everything that was committed below lsn is in Redis: the
// connector has noted that it has sent all that, the partitions end somewhere, and
// the service has settled what lies before. A heartbeat in one partition would
// prove nothing about another.
func (p *pipeline) settled(ctx context.Context, service *service, lsn uint64) error {
	tick := time.NewTicker(settledEvery)
	defer tick.Stop()
	wait := func(done func() (bool, error)) error {
		for {
			ok, err := done()
			if ok || ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if err := wait(func() (bool, error) { return p.sent(ctx, lsn) }); err != nil {
		return err
	}
	ends, err := p.ends(ctx)
	if err != nil {
		return err
	}
	return wait(func() (bool, error) {
		settled, err := service.offsets(ctx)
		for stream, end := range ends {
			if err != nil || settled[stream] < end {
				return false, err
			}
		}
		return true, nil
	})
}

// sent reports whether the connector has noted that it has sent everything below
// lsn.
func (p *pipeline) sent(ctx context.Context, lsn uint64) (bool, error) {
	offsets, err := p.client.Offsets(ctx, connectorName)
	for _, o := range offsets {
		if o.LSN >= lsn {
			return true, nil
		}
	}
	return false, err
}

// ends are the ends of the partitions by topic id and number, as the service names
// its streams.
func (p *pipeline) ends(ctx context.Context) (map[string]int64, error) {
	var topics []string
	for _, table := range tables {
		topics = append(topics, topicPrefix+".public."+table)
	}
	details, err := p.admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	listed, err := p.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("ask where the topics end: %w", err)
	}
	ends := map[string]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			id := details[o.Topic].ID
			ends[fmt.Sprintf("%s:%d", hex.EncodeToString(id[:]), o.Partition)] = o.Offset
		}
	})
	return ends, nil
}

// A PipelineReport is how the pipeline does.
type PipelineReport struct {
	Kafka      string `json:"kafka"`
	Connect    string `json:"connect"`
	Registry   string `json:"schema_registry"`
	Connector  string `json:"connector"` // its state
	LagRecords int64  `json:"lag_records"`
}

// String has what changes while it works.
func (r *PipelineReport) String() string {
	return fmt.Sprintf("connector %s, %d records to be read", r.Connector, r.LagRecords)
}

func (p *pipeline) report(ctx context.Context, service *service) *PipelineReport {
	p.last.Kafka, p.last.Connect, p.last.Registry = p.kafka.Name(), p.worker.Name(), p.registry.Name()
	if status, err := p.client.Status(ctx, connectorName); err == nil {
		p.last.Connector = string(status.Connector.State)
		for _, task := range status.Tasks {
			p.last.Connector = string(task.State)
		}
	}
	if status, err := service.status(ctx); err == nil {
		p.last.LagRecords = status.LagRecords
	}
	r := p.last
	r.Connector = cmp.Or(r.Connector, "unknown")
	return &r
}
