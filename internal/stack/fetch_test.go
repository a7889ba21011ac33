package stack

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// Test programs run side by side and want the same server on a machine that has
// none: one fetches it, the others wait and find it whole.
func TestTheCacheIsFilledOnce(t *testing.T) {
	cache := t.TempDir()
	var times atomic.Int32
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			s := New(Options{Cache: cache}) // as another process would
			dir, err := s.cached(t.Context(), "server-1", "making it", func(temporary string) (string, error) {
				times.Add(1)
				return makeServer(temporary)
			})
			if err != nil {
				t.Error(err)
			} else if _, err := os.Stat(filepath.Join(dir, "server")); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if got := times.Load(); got != 1 {
		t.Errorf("it was made %d times, want once", got)
	}
}

// A network that fails half way must not leave half of a server, which every
// later run would take for a whole one.
func TestAFetchThatFailsLeavesNothingInTheCache(t *testing.T) {
	s := New(Options{Cache: t.TempDir()})
	broken := errors.New("the network is gone")
	_, err := s.cached(t.Context(), "server-1", "making it", func(temporary string) (string, error) {
		dir, err := makeServer(temporary)
		return dir, errors.Join(err, broken)
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v, want %v", err, broken)
	}
	left, err := filepath.Glob(filepath.Join(s.options.Cache, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "lock" {
		t.Errorf("got %v and %v in the cache, want its lock", left, err)
	}
	if _, err := s.cached(t.Context(), "server-1", "making it", makeServer); err != nil {
		t.Errorf("the next time: %v", err)
	}
}

func makeServer(temporary string) (string, error) {
	dir := filepath.Join(temporary, "made")
	return dir, errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "server"), nil, 0o755))
}

// What is served under a known name and version runs only if it is what it was
// when we tried it.
func TestFilesAreTakenOnlyAsTheyWere(t *testing.T) {
	// sha256sum a.jar b.jar | sha256sum
	const sum = "320bce965fc440d592724c995bb80ae9df6504b1c3299b7aae543f715a364de1"
	for _, c := range []struct {
		name  string
		files map[string]string
		taken bool
	}{
		{"the same", map[string]string{"a.jar": "a", "b.jar": "b"}, true},
		{"one changed", map[string]string{"a.jar": "a", "b.jar": "B"}, false},
		{"one renamed", map[string]string{"a.jar": "a", "c.jar": "b"}, false},
		{"one less", map[string]string{"a.jar": "a"}, false},
		{"one more", map[string]string{"a.jar": "a", "b.jar": "b", "c.jar": ""}, false},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := verifyAll(dir, sum); (err == nil) != c.taken {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}
