// Command control is the consumer that many hand-written ones look like: it reads
// Debezium's Avro records with confluent-kafka-go, decodes them with goavro into
// maps, deletes one key at a time with go-redis, and commits each message before it
// reads the next. It is what `make bench` measures Unstale against.
//
// Each choice is that of the libraries' own examples. It is correct in the order
// of its steps (it commits what it has deleted), and in little else: no gate, no
// watermark, no lease, so a cache that it keeps goes stale.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/linkedin/goavro/v2"
	"github.com/redis/go-redis/v9"
)

func main() {
	brokers := flag.String("brokers", "", "`host:port` of Kafka")
	topic := flag.String("topic", "", "`name` of the topic")
	group := flag.String("group", "", "`name` of the consumer group")
	schemas := flag.String("registry", "", "`url` of the schema registry")
	address := flag.String("redis", "", "`host:port` of Redis")
	prefix := flag.String("prefix", "", "`text` before the id in a key")
	changes := flag.Int("changes", 0, "how `many` to apply")
	flag.Parse()
	seconds, err := run(*brokers, *topic, *group, *schemas, *address, *prefix, *changes)
	if err != nil {
		fmt.Fprintln(os.Stderr, "control:", err)
		os.Exit(1)
	}
	fmt.Println(seconds)
}

// run applies changes and returns the time from the first to the last commit.
func run(brokers, topic, group, schemas, address, prefix string, changes int) (seconds float64, err error) {
	consumer, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers":  brokers,
		"group.id":           group,
		"auto.offset.reset":  "earliest",
		"enable.auto.commit": false,
	})
	if err != nil {
		return 0, err
	}
	defer consumer.Close()
	if err := consumer.Subscribe(topic, nil); err != nil {
		return 0, err
	}
	ctx := context.Background()
	cache := redis.NewClient(&redis.Options{Addr: address})
	defer cache.Close()
	codecs := map[uint32]*goavro.Codec{}
	var began time.Time
	for applied := 0; applied < changes; applied++ {
		message, err := consumer.ReadMessage(time.Minute)
		if err != nil {
			return 0, err
		}
		if began.IsZero() {
			began = time.Now()
		}
		if len(message.Value) < 5 || message.Value[0] != 0 {
			return 0, fmt.Errorf("a message that is not Avro: %x", message.Value)
		}
		id := binary.BigEndian.Uint32(message.Value[1:])
		if codecs[id] == nil {
			if codecs[id], err = codec(schemas, id); err != nil {
				return 0, err
			}
		}
		native, _, err := codecs[id].NativeFromBinary(message.Value[5:])
		if err != nil {
			return 0, err
		}
		envelope := native.(map[string]any)
		row := envelope["after"]
		if envelope["op"] == "d" {
			row = envelope["before"]
		}
		value := row.(map[string]any)["shop.public.orders.Value"].(map[string]any)
		if err := cache.Del(ctx, fmt.Sprintf("%s%v", prefix, value["id"])).Err(); err != nil {
			return 0, err
		}
		if _, err := consumer.CommitMessage(message); err != nil {
			return 0, err
		}
	}
	return time.Since(began).Seconds(), nil
}

// codec asks the registry for a schema.
func codec(registry string, id uint32) (*goavro.Codec, error) {
	response, err := http.Get(fmt.Sprintf("%s/schemas/ids/%d", registry, id))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("schema %d: %s", id, response.Status)
	}
	var answer struct{ Schema string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	return goavro.NewCodec(answer.Schema)
}
