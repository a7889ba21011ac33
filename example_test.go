package unstale_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/stack"
)

// exampleRedis starts a Redis for one example.
func exampleRedis() (rdb *redis.Client, stop func()) {
	servers := stack.New(stack.Options{})
	server, err := servers.Redis(context.Background(), stack.RedisOptions{})
	if err != nil {
		log.Fatal(err)
	}
	options, err := redis.ParseURL(server.URL())
	if err != nil {
		log.Fatal(err)
	}
	rdb = redis.NewClient(options)
	return rdb, func() {
		rdb.Close()
		servers.Close()
	}
}

// The first read loads and fills, the second is a hit.
func ExampleClient_Fetch() {
	rdb, stop := exampleRedis()
	defer stop()
	client, err := unstale.New(rdb, unstale.Options{TTL: time.Hour})
	if err != nil {
		log.Fatal(err)
	}

	load := func(context.Context) ([]byte, error) {
		fmt.Println("loading")
		// SELECT row_to_json(p)::text FROM products p WHERE id = 101
		return []byte(`{"id":101,"name":"Lamp"}`), nil
	}
	for range 2 {
		value, err := client.Fetch(context.Background(), "product:101", load)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", value)
	}
	// Output:
	// loading
	// {"id":101,"name":"Lamp"}
	// {"id":101,"name":"Lamp"}
}

// A change between the load and its fill takes the lease away: the caller gets
// its value, and the cache does not.
func ExampleClient_Fetch_change() {
	rdb, stop := exampleRedis()
	defer stop()
	ctx := context.Background()
	client, err := unstale.New(rdb, unstale.Options{})
	if err != nil {
		log.Fatal(err)
	}

	value, err := client.Fetch(ctx, "product:101", func(context.Context) ([]byte, error) {
		loaded := []byte(`{"id":101,"price":10}`)
		// Somebody changes the price now, and the service drops the key: the
		// value and the side key that holds the lease.
		rdb.Unlink(ctx, "product:101", "{product:101}:l")
		return loaded, nil
	})
	fmt.Printf("%s %v\n", value, err)
	fmt.Println("cached:", rdb.Exists(ctx, "product:101").Val() == 1)
	// Output:
	// {"id":101,"price":10} <nil>
	// cached: false
}

// Entries with format: hash are loaded as fields. A column that is NULL has none.
func ExampleClient_FetchHash() {
	rdb, stop := exampleRedis()
	defer stop()
	ctx := context.Background()
	client, err := unstale.New(rdb, unstale.Options{})
	if err != nil {
		log.Fatal(err)
	}

	load := func(context.Context) (fields map[string]string, lsn int64, err error) {
		fmt.Println("loading")
		// SELECT (SELECT json_object_agg(key, value) FROM json_each_text(row_to_json(s))
		//         WHERE value IS NOT NULL), unstale.LSN FROM stock s WHERE id = 101
		return map[string]string{"id": "101", "amount": "7"}, 0x16B3748, nil
	}
	for range 2 {
		fields, err := client.FetchHash(ctx, "stock:101", load)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(fields["amount"])
	}
	fmt.Println(rdb.HGet(ctx, "stock:101", "amount").Val())
	// Output:
	// loading
	// 7
	// 7
	// 7
}

// Characters that mean something in a key are encoded in its values.
func ExampleKey() {
	plain, _ := unstale.Key("product:{id}", "101")
	tenant, _ := unstale.Key("{{{tenant}}}:page:{path}", "acme", "/a:b")
	fmt.Println(plain)
	fmt.Println(tenant)
	// Output:
	// product:101
	// {acme}:page:/a%3Ab
}
