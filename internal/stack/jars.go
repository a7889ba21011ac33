package stack

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The versions were tried together, on Java 17.
const (
	kafkaVersion     = "4.3.1"
	log4jVersion     = "2.25.4"
	debeziumVersion  = "3.6.3.Final"
	converterVersion = "2.6.13.Final"
	registryVersion  = "3.0.9"
)

// A jarSet is one part of the servers that run on Java, from the registry that
// the machine's mvn is set up for.
type jarSet struct {
	name, version string
	// archive is a tar.gz, group:artifact:version:type:classifier.
	archive string
	// jars, where there is no archive, are fetched with all that they need, less
	// what belongs to the groups in without, into the folder. Each is
	// group:artifact:version.
	jars, without []string
	folder        string
	// converter is a class in the jars that they do not announce. Connect would
	// have to look through all classes of all plugins for it.
	converter string
	// sum is the SHA-256 of what sha256sum prints of the fetched files, in the
	// order of their names.
	sum string
}

var (
	// kafkaJars are the broker and Connect, which share most of them.
	kafkaJars = jarSet{
		name: "kafka", version: kafkaVersion,
		jars: []string{
			"org.apache.kafka:kafka_2.13:" + kafkaVersion,
			"org.apache.kafka:connect-runtime:" + kafkaVersion,
			"org.apache.kafka:connect-json:" + kafkaVersion,
			"org.apache.kafka:connect-transforms:" + kafkaVersion,
			"org.apache.logging.log4j:log4j-slf4j-impl:" + log4jVersion,
		},
		folder: "jars",
		sum:    "f437708642ddfcf2da8b303f4204d9a77391bc4affd15d6e7cddba51dda70e74",
	}

	debeziumJars = jarSet{
		name: "debezium-postgres", version: debeziumVersion,
		archive: "io.debezium:debezium-connector-postgres:" + debeziumVersion + ":tar.gz:plugin",
		sum:     "615ba02349f1c1e95189bed490f02f59d277d8a73f99f8be465a5d861f3069e9",
	}

	// converterJars are Apicurio's for Avro. Of 3.x not all jars are published,
	// and Confluent publishes its own elsewhere.
	converterJars = jarSet{
		name: "apicurio-converter", version: converterVersion,
		jars:      []string{"io.apicurio:apicurio-registry-utils-converter:" + converterVersion},
		without:   []string{"org.apache.kafka", "org.slf4j"}, // Connect's own
		folder:    "apicurio-converter",
		converter: avroConverter,
		sum:       "cec9775328c3bc84aadc428fd431cfb477fc783c57ad1bf6412c90eecdf64d85",
	}

	registryJars = jarSet{
		name: "apicurio-registry", version: registryVersion,
		archive: "io.apicurio:apicurio-registry-app:" + registryVersion + ":tar.gz:all",
		sum:     "0982c4eaa222355c86bd4dfc83495d4929ae319ebe00ef5677f131a2e205065d",
	}
)

// fetchJars returns the directory of each set, from the cache if it is there.
func (s *Stack) fetchJars(ctx context.Context, sets ...jarSet) (dirs []string, err error) {
	s.installing.Lock()
	defer s.installing.Unlock()
	for _, j := range sets {
		what := j.name + " " + j.version
		dir, err := s.cached(ctx, j.name+"-"+j.version, "fetching "+what+" with mvn", func(temporary string) (string, error) {
			files, err := s.mavenCopy(ctx, j, temporary)
			if err != nil {
				return "", err
			}
			if err := verifyAll(files, j.sum); err != nil {
				return "", err
			}
			unpacked := filepath.Join(temporary, "unpacked")
			return unpacked, j.unpack(files, unpacked)
		})
		if err != nil {
			return nil, fmt.Errorf("fetch %s: %w", what, err)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// mavenPlugin is pinned because later versions want the parent of the registry's
// pom, which is not published.
const mavenPlugin = "org.apache.maven.plugins:maven-dependency-plugin:2.8:"

// mavenCopy has mvn put the files of the set into a directory.
func (s *Stack) mavenCopy(ctx context.Context, j jarSet, temporary string) (string, error) {
	maven, err := s.findMaven(ctx)
	if err != nil {
		return "", err
	}
	files := filepath.Join(temporary, "files")
	args := []string{"--batch-mode", "--quiet", "--strict-checksums",
		// A local repository of our own: in the user's another mvn may be at work,
		// and all of this would stay there a second time.
		"-Dmaven.repo.local=" + filepath.Join(s.dir, "maven"),
		"-DoutputDirectory=" + files}
	if j.archive != "" {
		return files, run(ctx, nil, maven, append(args, mavenPlugin+"copy", "-Dartifact="+j.archive)...)
	}
	pom := filepath.Join(temporary, "pom.xml")
	if err := os.WriteFile(pom, []byte(j.pom()), 0o644); err != nil {
		return "", err
	}
	return files, run(ctx, nil, maven, append(args, mavenPlugin+"copy-dependencies", "-DincludeScope=runtime", "--file="+pom)...)
}

// pom is a project that has the jars as its dependencies.
func (j jarSet) pom() string {
	var exclusions, dependencies strings.Builder
	for _, group := range j.without {
		fmt.Fprintf(&exclusions, "<exclusion><groupId>%s</groupId><artifactId>*</artifactId></exclusion>", group)
	}
	for _, jar := range j.jars {
		c := strings.Split(jar, ":")
		fmt.Fprintf(&dependencies, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version><exclusions>%s</exclusions></dependency>\n",
			c[0], c[1], c[2], exclusions.String())
	}
	return fmt.Sprintf(`<project>
<modelVersion>4.0.0</modelVersion>
<groupId>unstale</groupId><artifactId>%s</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
%s</dependencies>
</project>
`, j.name, dependencies.String())
}

// unpack makes of the fetched files what the cache keeps.
func (j jarSet) unpack(files, dir string) error {
	if j.archive != "" {
		archives, err := filepath.Glob(filepath.Join(files, "*.tar.gz"))
		if err != nil || len(archives) != 1 {
			return fmt.Errorf("mvn fetched %d archives for %s, want one: %v", len(archives), j.archive, err)
		}
		if err := untar(archives[0], dir); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(archives[0]), err)
		}
		return nil
	}
	if j.converter != "" {
		if err := announceConverter(filepath.Join(files, "announced.jar"), j.converter); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Rename(files, filepath.Join(dir, j.folder))
}

// announceConverter writes a jar that names the converter to a ServiceLoader.
func announceConverter(path, class string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	jar := zip.NewWriter(file)
	entry, err := jar.Create("META-INF/services/org.apache.kafka.connect.storage.Converter")
	if err == nil {
		_, err = io.WriteString(entry, class+"\n")
	}
	return errors.Join(err, jar.Close(), file.Close())
}

// verifyAll compares the sum of all files in a directory.
func verifyAll(dir, want string) error {
	entries, err := os.ReadDir(dir) // in the order of their names
	if err != nil {
		return err
	}
	all := sha256.New()
	for _, entry := range entries {
		sum, err := sumFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(all, "%s  %s\n", sum, entry.Name())
	}
	if got := hex.EncodeToString(all.Sum(nil)); got != want {
		return fmt.Errorf("these are not the %d files that this version knows: their SHA-256 is %s, want %s", len(entries), got, want)
	}
	return nil
}

// untar unpacks the files of a tar.gz.
func untar(archive, dir string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	for reader := tar.NewReader(unzipped); ; {
		entry, err := reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case entry.Typeflag != tar.TypeReg:
			continue
		}
		if !filepath.IsLocal(entry.Name) {
			return fmt.Errorf("the name %q leads out of the archive", entry.Name)
		}
		if err := writeFile(filepath.Join(dir, entry.Name), reader); err != nil {
			return err
		}
	}
}
