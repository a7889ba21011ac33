package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// JVM says how a server on Java runs. The zero value is for tests: quick to
// start and small.
type JVM struct {
	// FullJIT lets Java compile what is hot as well as it can. A benchmark of the
	// server needs it; nothing else lives long enough to get back what it costs.
	FullJIT bool
	// HeapMax is the most memory of the heap in MiB; 0 is what a test needs.
	HeapMax int
}

// A javaBuild is one java program.
type javaBuild struct {
	version version
	binary  string
}

// javaMajorMin is the oldest Java that Debezium and the registry run on.
const javaMajorMin = 17

// installedJava is the first java that is new enough: of JAVA_HOME, on PATH,
// where distributions put them.
func installedJava() (javaBuild, bool) {
	var binaries []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		binaries = append(binaries, filepath.Join(home, "bin", "java"))
	}
	if path, err := exec.LookPath("java"); err == nil {
		binaries = append(binaries, path)
	}
	found, err := filepath.Glob("/usr/lib/jvm/*/bin/java")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for _, binary := range append(binaries, found...) {
		// Java 8 knows no --version, and is too old.
		if v, _, err := programVersion(binary); err == nil && v.major() >= javaMajorMin {
			return javaBuild{version: v, binary: binary}, true
		}
	}
	return javaBuild{}, false
}

// findJava returns a java, after installing it if there is none.
func (s *Stack) findJava(ctx context.Context) (javaBuild, error) {
	s.installing.Lock()
	defer s.installing.Unlock()
	if java, ok := installedJava(); ok {
		return java, nil
	}
	err := s.aptInstall(ctx, "default-jre-headless")
	if java, ok := installedJava(); ok {
		return java, nil
	}
	mend := fmt.Sprintf("Java %d or later is missing; install it (Debian and Ubuntu: apt-get install openjdk-%[1]d-jre-headless) or set JAVA_HOME", javaMajorMin)
	if err != nil {
		return javaBuild{}, fmt.Errorf("%s: %w", mend, err)
	}
	return javaBuild{}, errors.New(mend)
}

// findMaven returns the path of mvn, after installing it if there is none.
func (s *Stack) findMaven(ctx context.Context) (string, error) {
	if maven, err := exec.LookPath("mvn"); err == nil {
		return maven, nil
	}
	if err := s.aptInstall(ctx, "maven"); err != nil {
		return "", fmt.Errorf("mvn is missing; install it (Debian and Ubuntu: apt-get install maven): %w", err)
	}
	return exec.LookPath("mvn")
}

// startJava starts a server that is the program of java with these arguments.
func (s *Server) startJava(ctx context.Context, java javaBuild, jvm JVM, args ...string) error {
	// What native code unpacks into /tmp would outlive a server that is killed.
	temporary := filepath.Join(s.dir, "tmp")
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return err
	}
	flags := []string{
		"-Xms64m", fmt.Sprintf("-Xmx%dm", jvm.HeapMax),
		"-XX:+UseSerialGC",
		"-XX:-UsePerfData", // is a file in /tmp
		"-Djava.io.tmpdir=" + temporary,
	}
	s.stop = syscall.SIGTERM
	if jvm.FullJIT {
		s.runJava(java, flags, args)
		return s.start(ctx)
	}
	flags = append(flags, "-XX:TieredStopAtLevel=1")
	classes, err := s.classes(ctx, java, flags, args)
	if err != nil {
		return err
	}
	s.runJava(java, append(flags, "-XX:SharedArchiveFile="+classes), args)
	return s.start(ctx)
}

// runJava says what a life of the server is.
func (s *Server) runJava(java javaBuild, flags, args []string) {
	all := slices.Concat(flags, args)
	s.command = func() *exec.Cmd {
		cmd := exec.Command(java.binary, all...)
		// Nothing of our environment: these servers take settings from theirs.
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
		cmd.SysProcAttr = attached(nil, syscall.SIGKILL)
		return cmd
	}
}

// classes returns a file with the classes of the server, read and checked, from
// the cache. It takes half of its work from every start. Java writes the file as
// it ends, so the first server of its kind on a machine gives a life for it. A
// java that is not the one that wrote it loads the classes itself.
func (s *Server) classes(ctx context.Context, java javaBuild, flags, args []string) (string, error) {
	const file = "classes"
	kind := strings.ReplaceAll(strings.ToLower(s.name), " ", "-")
	dir, err := s.stack.cached(ctx, fmt.Sprintf("%s-java-%s", kind, java.version), "preparing the classes of "+s.name, func(temporary string) (string, error) {
		dir := filepath.Join(temporary, "made")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
		path := filepath.Join(dir, file)
		s.runJava(java, append(flags, "-XX:ArchiveClassesAtExit="+path), args)
		if err := s.start(ctx); err != nil {
			return "", err
		}
		if err := s.signal(ctx, s.stop); err != nil {
			return "", err
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s wrote no classes at its end: %w", java.binary, err)
		}
		return dir, nil
	})
	return filepath.Join(dir, file), err
}

// logConfig has Kafka's servers log to their standard output.
const logConfig = `rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p [%t] %c{1}: %m%n
`

// kafkaProgram returns the arguments of java for one of Kafka's programs, whose
// settings it writes.
func (s *Server) kafkaProgram(jars, program string, settings map[string]string) ([]string, error) {
	config, logs := filepath.Join(s.dir, "properties"), filepath.Join(s.dir, "log4j2.properties")
	if err := writeProperties(config, settings); err != nil {
		return nil, err
	}
	if err := os.WriteFile(logs, []byte(logConfig), 0o644); err != nil {
		return nil, err
	}
	return []string{"-Dlog4j2.configurationFile=" + logs, "-cp", filepath.Join(jars, kafkaJars.folder, "*"), program, config}, nil
}

// writeProperties writes a file of settings as Java reads them.
func writeProperties(path string, settings map[string]string) error {
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&lines, "%s=%s\n", name, escape.Replace(settings[name]))
	}
	return os.WriteFile(path, []byte(lines.String()), 0o644)
}
