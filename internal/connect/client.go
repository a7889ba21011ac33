package connect

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// requestMax bounds one request; Connect itself gives up after 90 seconds,
	// and asks the database about a configuration before it takes it.
	requestMax = 60 * time.Second
	// rebalanceMax is how long Connect may refuse because its workers are
	// sharing out the tasks anew.
	rebalanceMax = 30 * time.Second
	// retryMin and retryMax are what lies between two tries.
	retryMin, retryMax = 100 * time.Millisecond, 2 * time.Second
	// answerBytesMax bounds an answer; the list of plugins has some 10 kB.
	answerBytesMax = 8 << 20
	// messageMax bounds, in characters, what is passed on of a message or a
	// trace.
	messageMax = 400
)

// ErrNotFound: there is no connector of that name.
var ErrNotFound = errors.New("there is no such connector")

// Options of a client.
type Options struct {
	Username, Password string
	TLS                *tls.Config
	// RebalanceMax is how long to try again while Connect rebalances; 30 seconds
	// if it is zero.
	RebalanceMax time.Duration
}

// A Client speaks to the REST API of Kafka Connect. It is for any number of
// goroutines.
type Client struct {
	base    *url.URL // without user and password
	http    *http.Client
	options Options
}

// NewClient is for the API at that URL, which may have a path and a login.
func NewClient(base string, options Options) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		// What url.Parse says is not passed on: it quotes the password.
		return nil, errors.New("the URL of Kafka Connect has a mistake in it")
	}
	if options.Username == "" && u.User != nil {
		options.Username = u.User.Username()
	}
	if password, has := u.User.Password(); has && options.Password == "" {
		options.Password = password
	}
	u.User = nil
	if options.RebalanceMax == 0 {
		options.RebalanceMax = rebalanceMax
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = options.TLS
	return &Client{base: u, options: options, http: &http.Client{Transport: transport, Timeout: requestMax}}, nil
}

// Close ends connections that are kept open.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// URL is where the API is, without a login.
func (c *Client) URL() string { return c.base.String() }

// A Plugin is a class that the workers can load.
type Plugin struct {
	Class   string `json:"class"`
	Type    string `json:"type"`    // source, converter, transformation, ...
	Version string `json:"version"` // may be undefined
}

// Plugins lists what the worker that answers can load.
func (c *Client) Plugins(ctx context.Context) (plugins []Plugin, err error) {
	return plugins, c.do(ctx, http.MethodGet, nil, &plugins, "/connector-plugins?connectorsOnly=false")
}

// Configs are the configurations of all connectors, by name. They hold secrets.
func (c *Client) Configs(ctx context.Context) (map[string]map[string]string, error) {
	var answer map[string]struct {
		Info struct{ Config map[string]string }
	}
	if err := c.do(ctx, http.MethodGet, nil, &answer, "/connectors?expand=info"); err != nil {
		return nil, err
	}
	configs := map[string]map[string]string{}
	for name, connector := range answer {
		configs[name] = connector.Info.Config
	}
	return configs, nil
}

// Config is the configuration of a connector, or ErrNotFound. It holds secrets.
func (c *Client) Config(ctx context.Context, connector string) (config map[string]string, err error) {
	return config, c.do(ctx, http.MethodGet, nil, &config, "/connectors/", connector, "/config")
}

// PutConfig creates a connector or gives it another configuration. Connect looks
// at it first, and at the database, and refuses what cannot work.
func (c *Client) PutConfig(ctx context.Context, connector string, config map[string]string) error {
	return c.do(ctx, http.MethodPut, config, nil, "/connectors/", connector, "/config")
}

// Status is that of a connector and its tasks, or ErrNotFound.
func (c *Client) Status(ctx context.Context, connector string) (s Status, err error) {
	return s, c.do(ctx, http.MethodGet, nil, &s, "/connectors/", connector, "/status")
}

// RestartFailed starts again what has failed of a connector and its tasks.
func (c *Client) RestartFailed(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodPost, nil, nil, "/connectors/", connector, "/restart?includeTasks=true&onlyFailed=true")
}

// Restart starts a connector and all its tasks again.
func (c *Client) Restart(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodPost, nil, nil, "/connectors/", connector, "/restart?includeTasks=true&onlyFailed=false")
}

// Pause lets the tasks hold, with their connections kept. It takes effect later.
func (c *Client) Pause(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodPut, nil, nil, "/connectors/", connector, "/pause")
}

// Resume ends a pause. It takes effect later.
func (c *Client) Resume(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodPut, nil, nil, "/connectors/", connector, "/resume")
}

// Delete takes a connector away. Its position stays.
func (c *Client) Delete(ctx context.Context, connector string) error {
	return c.do(ctx, http.MethodDelete, nil, nil, "/connectors/", connector)
}

// Topics are those that the connector has written to since it was made.
func (c *Client) Topics(ctx context.Context, connector string) ([]string, error) {
	answer := map[string]struct{ Topics []string }{}
	err := c.do(ctx, http.MethodGet, nil, &answer, "/connectors/", connector, "/topics")
	return answer[connector].Topics, err
}

// An Offset is how far a connector of Debezium for PostgreSQL has come.
type Offset struct {
	Prefix string // topic.prefix
	// LSN: every transaction that was committed below it has been sent. Zero
	// until the connector has sent something.
	LSN uint64
	// Sent is where the last transaction ended of which it is certain that the
	// brokers have acknowledged all of it, and of every one before. Zero while there
	// is none, as in a snapshot.
	//
	// Connect commits the offset of a record only when that and all before it were
	// acknowledged (SubmittedRecords of Kafka 3.0 and later, KAFKA-12226), and
	// Debezium has the end of the transaction before in each (lsn_commit).
	Sent uint64
}

// Offsets returns the positions that Connect has committed for a connector: up
// to offset.flush.interval.ms of the workers (a minute by its default) behind
// what has been sent.
func (c *Client) Offsets(ctx context.Context, connector string) ([]Offset, error) {
	var answer struct {
		Offsets []struct {
			Partition struct{ Server string }
			Offset    struct {
				LSN      uint64
				Commit   uint64 `json:"lsn_commit"`
				Snapshot any
			}
		}
	}
	err := c.do(ctx, http.MethodGet, nil, &answer, "/connectors/", connector, "/offsets")
	var offsets []Offset
	for _, o := range answer.Offsets {
		offset := Offset{Prefix: o.Partition.Server, LSN: o.Offset.LSN}
		if o.Offset.Snapshot == nil { // else rows from before are still to come
			offset.Sent = o.Offset.Commit
		}
		offsets = append(offsets, offset)
	}
	return offsets, err
}

// do sends one request. Of the path every second part is a name, which is
// escaped. While Connect rebalances it is sent again: all requests here can be
// sent twice.
func (c *Client) do(ctx context.Context, method string, config map[string]string, answer any, path ...string) error {
	target := strings.TrimSuffix(c.base.String(), "/")
	for i, part := range path {
		if i%2 == 1 {
			part = url.PathEscape(part)
		}
		target += part
	}
	var body []byte
	if config != nil {
		var err error
		if body, err = json.Marshal(config); err != nil {
			return err
		}
	}
	until := time.Now().Add(c.options.RebalanceMax)
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := c.try(ctx, method, target, body, answer)
		var refused *refusal
		if !errors.As(err, &refused) {
			return err
		}
		refused.message = oneLine(withoutSecrets(refused.message, config))
		if !refused.passing() || time.Now().Add(wait).After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

func (c *Client) try(ctx context.Context, method, target string, body []byte, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.options.Username != "" {
		request.SetBasicAuth(c.options.Username, c.options.Password)
	}
	reply, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("%w\n  is Kafka Connect running, and is this its REST API (source.kafka.connect)?", err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(io.LimitReader(reply.Body, answerBytesMax))
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, target, err)
	}
	if reply.StatusCode >= 300 {
		return refusalOf(method, target, reply.StatusCode, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s %s: the answer is not that of Kafka Connect: is this its REST API (source.kafka.connect)?", method, target)
	}
	return nil
}

// A refusal is an answer of Connect that is none.
type refusal struct {
	method, target string
	status         int
	known          bool // Connect itself said it, not a proxy before it
	message        string
}

func refusalOf(method, target string, status int, text []byte) *refusal {
	var answer struct {
		Code    int    `json:"error_code"`
		Message string `json:"message"`
	}
	_ = json.Unmarshal(text, &answer) // a proxy answers in HTML
	message, _, _ := strings.Cut(answer.Message, "You can also find the above list of errors")
	// A path that Connect does not have is answered like a connector that it does
	// not have, but for the words.
	known := answer.Code != 0 && !strings.HasPrefix(message, "HTTP ")
	return &refusal{method, target, status, known, message}
}

// passing reports whether the same request may do later: 409 while the workers
// rebalance, 503 and 500 with a timeout while they start or look for a leader.
func (r *refusal) passing() bool {
	switch r.status {
	case http.StatusConflict, http.StatusServiceUnavailable:
		return true
	case http.StatusInternalServerError:
		return strings.Contains(r.message, "timed out") || strings.Contains(r.message, "rebalance is expected")
	}
	return false
}

func (r *refusal) Unwrap() error {
	if r.status == http.StatusNotFound && r.known {
		return ErrNotFound
	}
	return nil
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("%s %s: %d %s", r.method, r.target, r.status, http.StatusText(r.status))
	if r.message != "" {
		text += ": " + r.message
	}
	switch {
	case r.status == http.StatusUnauthorized || r.status == http.StatusForbidden:
		text += "\n  look at username and password of source.kafka.connect"
	case r.status == http.StatusNotFound && r.Unwrap() == nil:
		text += "\n  is this the REST API of Kafka Connect (source.kafka.connect)? One that is starting answers so for a moment"
	case r.status == http.StatusConflict:
		text += "\n  its workers are sharing out their tasks anew; try again in a minute"
	}
	return text
}

var secretKey = regexp.MustCompile(`(?i)password|secret|user\.info|token|jaas`)

// withoutSecrets takes out of a message what of a configuration is secret:
// Connect quotes values that it does not like.
func withoutSecrets(message string, config map[string]string) string {
	var secrets []string
	for key, value := range config {
		if secretKey.MatchString(key) && value != "" && !isReference(value) {
			secrets = append(secrets, value)
		}
		// Of a login in a URL the password may be quoted alone, as it stands there or
		// decoded.
		for _, at := range logins(value) {
			if _, password, has := strings.Cut(value[at[0]:at[1]], ":"); has && password != "" && !isReference(password) {
				decoded, _ := url.PathUnescape(password)
				secrets = append(secrets, password, decoded)
			}
		}
	}
	// The longest first: one may be a part of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		if secret != "" {
			message = strings.ReplaceAll(message, secret, hidden)
		}
	}
	return message
}
