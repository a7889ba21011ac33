package stack

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// RegistryOptions of one schema registry.
type RegistryOptions struct {
	// Settings are the registry's, over the defaults of this package.
	Settings map[string]string
	JVM      JVM
}

// Registry is a running Apicurio Registry, which speaks the API of Confluent's
// schema registry beside its own. It keeps its schemas, and their ids, over a
// restart.
type Registry struct {
	*Server
}

// registryHeapMax is in MiB.
const registryHeapMax = 256

// Registry starts a schema registry: it fetches one unless that was done before,
// and returns when it answers.
func (s *Stack) Registry(ctx context.Context, options RegistryOptions) (*Registry, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	java, err := s.findJava(ctx)
	if err != nil {
		return nil, err
	}
	dirs, err := s.fetchJars(ctx, registryJars)
	if err != nil {
		return nil, err
	}
	server, err := s.newServer("registry", "Apicurio Registry "+registryVersion, nil)
	if err != nil {
		return nil, err
	}
	r := &Registry{Server: server}
	began := time.Now()
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := r.create(ctx, java, dirs[0], options); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.name, err)
	}
	s.say("started %s on %s in %s", r.name, r.Addr(), time.Since(began).Round(time.Millisecond))
	return r, nil
}

func (r *Registry) create(ctx context.Context, java javaBuild, jars string, options RegistryOptions) (err error) {
	if r.port, err = reservePort(); err != nil {
		return err
	}
	config := filepath.Join(r.dir, "config") // where Quarkus looks, from its working directory
	for _, dir := range []string{r.data(), config} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	settings := map[string]string{
		"quarkus.http.host":               "127.0.0.1",
		"quarkus.http.port":               strconv.Itoa(r.Port()),
		"quarkus.management.enabled":      "false",
		"quarkus.http.access-log.enabled": "false",
		// A file, by default it is memory. A commit is written before it is
		// answered, by default half a second later.
		"apicurio.datasource.url": "jdbc:h2:file:" + filepath.Join(r.data(), "registry") + ";WRITE_DELAY=0",
		// Connections, by default 20 that are opened at the start.
		"apicurio.datasource.jdbc.initial-size": "1",
		"apicurio.datasource.jdbc.min-size":     "1",
		"apicurio.datasource.jdbc.max-size":     "10",
	}
	maps.Copy(settings, options.Settings)
	if err := writeProperties(filepath.Join(config, "application.properties"), settings); err != nil {
		return err
	}
	r.probe = func(ctx context.Context) error { return getOK(ctx, r.CompatURL()+"/subjects") }
	options.JVM.HeapMax = cmp.Or(options.JVM.HeapMax, registryHeapMax)
	return r.startJava(ctx, java, options.JVM, "-jar", filepath.Join(jars, "apicurio-registry-app-"+registryVersion+"-runner.jar"))
}

// URL is of the server; its own API is under /apis/registry.
func (r *Registry) URL() string { return "http://" + r.Addr() }

// CompatURL is what a client of Confluent's schema registry takes as the URL.
func (r *Registry) CompatURL() string { return r.URL() + "/apis/ccompat/v7" }

// getOK reports whether a GET is answered with 200. Its connection is closed
// behind it: nobody closes those of a client that is thrown away.
func getOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, response.Status, body)
	}
	return nil
}
