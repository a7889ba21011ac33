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

// javaMajorMin is the oldest Java that Debezium and the registry run on.
const javaMajorMin = 17

// findJava returns a java that is new enough, after installing it if there is
// none.
func (s *Stack) findJava(ctx context.Context) (string, error) {
	s.installing.Lock()
	defer s.installing.Unlock()
	if java := installedJava(); java != "" {
		return java, nil
	}
	mend := fmt.Sprintf("Java %d or later is missing; install it (Debian and Ubuntu: apt-get install openjdk-%d-jre-headless) or set JAVA_HOME", javaMajorMin, javaMajorMin)
	if err := s.aptInstall(ctx, "default-jre-headless"); err != nil {
		return "", fmt.Errorf("%s: %w", mend, err)
	}
	if java := installedJava(); java != "" {
		return java, nil
	}
	return "", errors.New(mend)
}

// installedJava is the first java that is new enough: of JAVA_HOME, on PATH,
// where distributions put them.
func installedJava() string {
	var candidates []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		candidates = append(candidates, filepath.Join(home, "bin", "java"))
	}
	if path, err := exec.LookPath("java"); err == nil {
		candidates = append(candidates, path)
	}
	found, err := filepath.Glob("/usr/lib/jvm/*/bin/java")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for _, java := range append(candidates, found...) {
		// What is older than 9 knows no --version.
		if v, _, err := programVersion(java); err == nil && v.major() >= javaMajorMin {
			return java
		}
	}
	return ""
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

// JVM says how a server on Java runs. The zero value is for tests: quick to
// start and small.
type JVM struct {
	// FullJIT lets Java compile the code that is hot once more, as well as it
	// can. A benchmark of the server needs it; nothing else lives long enough to
	// have back what it costs.
	FullJIT bool
	// HeapMax is the most memory of the heap in MiB; 0 is the least that the
	// server does well with.
	HeapMax int
}

// flags of java for a server whose temporary files go to dir. What native code
// unpacks there would outlive a killed server in /tmp.
func (j JVM) flags(heapMax int, temporary string) []string {
	if j.HeapMax > 0 {
		heapMax = j.HeapMax
	}
	flags := []string{
		"-Xms64m", fmt.Sprintf("-Xmx%dm", heapMax),
		"-XX:+UseSerialGC",
		"-XX:-UsePerfData", // a file in /tmp
		"-Djava.io.tmpdir=" + temporary,
	}
	if !j.FullJIT {
		flags = append(flags, "-XX:TieredStopAtLevel=1")
	}
	return flags
}

// runJava says how the server is started, with these arguments for java.
func (s *Server) runJava(java string, args ...string) {
	s.command = func() *exec.Cmd {
		cmd := exec.Command(java, args...)
		// Nothing of our environment: these servers take settings from theirs.
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
		cmd.SysProcAttr = attached(nil, syscall.SIGKILL)
		return cmd
	}
	s.stop = syscall.SIGTERM
}

func (s *Server) temporary() string { return filepath.Join(s.dir, "tmp") }

// logConfig has Kafka's servers log to their standard output.
const logConfig = `rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p [%t] %c{1}: %m%n
`

// writeProperties writes a file of settings as Java reads them.
func writeProperties(path string, settings map[string]string) error {
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&lines, "%s=%s\n", name, escape.Replace(settings[name]))
	}
	return os.WriteFile(path, []byte(lines.String()), 0o644)
}

// merge returns the settings with those of the caller over them.
func merge(settings, over map[string]string) map[string]string {
	maps.Copy(settings, over)
	return settings
}
