package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/redissink"
)

// connectAgainAfter is how long run waits between two tries to reach a database
// that is away when it starts.
const connectAgainAfter = time.Second

// examineWhenReachable holds until the database answers, and returns an error
// if something there must be mended by a person first.
func examineWhenReachable(ctx context.Context, c *config.Config, databaseConfig *pgx.ConnConfig, logger *slog.Logger, status *currentStatus) (*examination, error) {
	for said := false; ; said = true {
		conn, err := pgx.ConnectConfig(ctx, databaseConfig)
		if err == nil {
			var x *examination
			x, err = examineHolding(ctx, c, conn, true)
			broken := conn.IsClosed()
			_ = conn.Close(context.WithoutCancel(ctx)) // it holds nothing
			if err == nil {
				return x, standsInTheWay(x.problems)
			}
			if !broken {
				return nil, err
			}
		}
		if needsPerson(err) {
			return nil, fmt.Errorf("database: %w", err)
		}
		if !said {
			holding := apply.Status{State: apply.StateHolding, Holding: map[string]string{"database": err.Error()}}
			status.is(func() apply.Status { return holding })
			logger.Warn("holding until the database can be reached", "server", "database", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(connectAgainAfter):
		}
	}
}

// needsPerson reports that waiting will not help: a wrong user or password
// (SQLSTATE class 28), a database that does not exist, a certificate that is not
// to be trusted.
func needsPerson(err error) bool {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(refused.Code, "28") || refused.Code == "3D000"
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return untrusted
}

// standsInTheWay returns an error that prints every problem with which the
// stream could not start or could miss a change.
func standsInTheWay(problems []database.Problem) error {
	var texts []string
	for _, p := range problems {
		if p.Severity == database.Wrong {
			texts = append(texts, p.String())
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("the database is not ready (unstale check says the same):\n\n%s", strings.Join(texts, "\n\n"))
}

// refuseRedis returns an error that prints what only a person can mend. A Redis
// that is away is none of that: the loop holds until it is back.
func refuseRedis(ctx context.Context, c *config.Config, client *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	problems, err := redissink.Diagnose(ctx, client, redisKeys(c)...)
	if err != nil {
		return nil
	}
	var texts []string
	for _, p := range problems {
		if !p.Passing {
			texts = append(texts, fmt.Sprintf("error: redis: %s\n    %s", p.Text, p.Mend))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("redis is not ready (unstale check says the same):\n\n%s", strings.Join(texts, "\n\n"))
}

func databaseConfig(c *config.Config) (*pgx.ConnConfig, error) {
	if c.Database.URL == "" {
		// Without an address the driver would take what the environment says.
		return nil, fmt.Errorf("%s names no database: write database: ${DATABASE_URL}", c.File())
	}
	databaseConfig, err := pgx.ParseConfig(c.Database.ConnString())
	if err != nil {
		// Before that stands the whole string.
		reason := err.Error()
		if i := strings.LastIndex(reason, "`: "); i >= 0 {
			reason = reason[i+len("`: "):]
		}
		return nil, config.Problems{c.Problem("database", "is no connection that can be made: "+reason, "write postgres://user@host:5432/name or host=... user=... dbname=...")}.Err()
	}
	expectName(&databaseConfig.Config, c.Database.TLS.ServerName)
	for name := range databaseConfig.RuntimeParams {
		if strings.EqualFold(name, "jit") || strings.EqualFold(name, "application_name") {
			delete(databaseConfig.RuntimeParams, name) // the server would get it twice
		}
	}
	databaseConfig.RuntimeParams["application_name"] = applicationName
	// The planner takes the statements over the catalog for dear, and compiling one
	// costs a second of a processor: the look at the catalog comes every five.
	databaseConfig.RuntimeParams["jit"] = "off"
	return databaseConfig, nil
}

// expectName sets the name that the server's certificate must have, for which
// connection strings have no word.
func expectName(connection *pgconn.Config, name string) {
	if name == "" {
		return
	}
	if connection.TLSConfig != nil {
		connection.TLSConfig.ServerName = name
	}
	for _, fallback := range connection.Fallbacks {
		if fallback.TLSConfig != nil {
			fallback.TLSConfig.ServerName = name
		}
	}
}

func redisClient(c config.Redis) (*redis.Client, error) {
	options, err := redis.ParseURL(string(c.URL))
	if err != nil {
		return nil, err
	}
	if c.Username != "" {
		options.Username = c.Username
	}
	if c.Password != "" {
		options.Password = string(c.Password)
	}
	if options.TLSConfig, err = c.TLSConfig(); err != nil {
		return nil, err
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout = c.DialTimeout, c.ReadTimeout, c.WriteTimeout
	// The loop tries again, and says so once. The driver would print a line of
	// its own for each attempt.
	options.MaxRetries, options.DialerRetries = -1, 1
	logging.Disable()
	options.DisableIdentity = true
	return redis.NewClient(options), nil
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // the configuration admits no other
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
