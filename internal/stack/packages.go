package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// fetchPackage returns a directory into which the distribution's package is
// unpacked, with whatever it depends on that the machine lacks. Nothing is
// installed: apt-get works on lists and archives of our own, which needs no
// root, and no script of a package runs, so no service starts.
func (s *Stack) fetchPackage(ctx context.Context, name string) (string, error) {
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	return s.cached(ctx, "package-"+name, "fetching the package "+name+" with apt-get", func(temporary string) (string, error) {
		lists, archives, unpacked := filepath.Join(temporary, "lists"), filepath.Join(temporary, "archives"), filepath.Join(temporary, "unpacked")
		for _, dir := range []string{filepath.Join(lists, "partial"), filepath.Join(archives, "partial"), unpacked} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return "", err
			}
		}
		private := []string{"-qq",
			"-o", "Dir::State::lists=" + lists, "-o", "Dir::Cache=" + temporary, "-o", "Dir::Cache::archives=" + archives,
			// Root would hand the download to an account that may not write here.
			"-o", "APT::Sandbox::User=",
			// The locks are the system's, and nothing of the system is touched.
			"-o", "Debug::NoLocking=1",
		}
		for _, step := range [][]string{{"update"}, {"install", "--yes", "--no-install-recommends", "--download-only", name}} {
			if err := run(ctx, nil, "apt-get", append(private[:len(private):len(private)], step...)...); err != nil {
				return "", err
			}
		}
		files, err := filepath.Glob(filepath.Join(archives, "*.deb"))
		if err != nil || len(files) == 0 {
			return "", errors.Join(fmt.Errorf("apt-get downloaded nothing for %s", name), err)
		}
		for _, file := range files {
			if err := run(ctx, nil, "dpkg-deb", "--extract", file, unpacked); err != nil {
				return "", err
			}
		}
		return unpacked, nil
	})
}

// librariesIn lists the library folders of an unpacked package, as the dynamic
// linker wants them.
func librariesIn(root string) string {
	folder := machine() + "-linux-gnu"
	return filepath.Join(root, "usr/lib", folder) + ":" + filepath.Join(root, "lib", folder)
}
