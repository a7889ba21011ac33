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

// A jarSet is one part of the servers that run on Java, from the Maven registry
// that the machine's mvn is set up for.
type jarSet struct {
	name, version string
	// jars are the coordinates group:artifact:version of what is fetched with
	// all that it needs, except what belongs to the groups in without.
	jars, without []string
	// archive is the coordinates group:artifact:version:type:classifier of a
	// tar.gz that is fetched, and unpacked, in place of jars.
	archive string
	// plugin is the folder that makes the jars a plugin of Kafka Connect.
	plugin string
	// services are the classes that the plugin provides, by interface, where its
	// own jars do not say so. Without that Connect would have to load every class
	// of every plugin to find them, which takes it seconds.
	services map[string]string
	// sum is the SHA-256 of the lines "sum  name" of the fetched files, in the
	// order of the names, as sha256sum prints them.
	sum string
}

// These versions were tried together. Java 17 runs all of them.
var (
	// kafkaJars are the broker and Connect, which share most of what they need.
	kafkaJars = jarSet{
		name: "kafka", version: "4.3.1",
		jars: []string{
			"org.apache.kafka:kafka_2.13:4.3.1",
			"org.apache.kafka:connect-runtime:4.3.1",
			"org.apache.kafka:connect-json:4.3.1",
			"org.apache.kafka:connect-transforms:4.3.1",
			"org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
		},
		sum: "f437708642ddfcf2da8b303f4204d9a77391bc4affd15d6e7cddba51dda70e74",
	}

	debeziumJars = jarSet{
		name: "debezium-postgres", version: "3.6.3.Final",
		archive: "io.debezium:debezium-connector-postgres:3.6.3.Final:tar.gz:plugin",
		sum:     "615ba02349f1c1e95189bed490f02f59d277d8a73f99f8be465a5d861f3069e9",
	}

	// avroJars are Apicurio's converter. The one of 3.x needs jars that are not
	// published, and Confluent's is in a registry of its own.
	avroJars = jarSet{
		name: "apicurio-converter", version: "2.6.13.Final",
		jars:     []string{"io.apicurio:apicurio-registry-utils-converter:2.6.13.Final"},
		without:  []string{"org.apache.kafka", "org.slf4j"}, // Connect's own
		plugin:   "apicurio-converter",
		services: map[string]string{"org.apache.kafka.connect.storage.Converter": avroConverter},
		sum:      "cec9775328c3bc84aadc428fd431cfb477fc783c57ad1bf6412c90eecdf64d85",
	}

	registryJars = jarSet{
		name: "apicurio-registry", version: "3.0.9",
		archive: "io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all",
		sum:     "0982c4eaa222355c86bd4dfc83495d4929ae319ebe00ef5677f131a2e205065d",
	}
)

// mavenCopy is pinned because later versions of the plugin want the parent of
// the registry's pom, which is not published.
const mavenCopy = "org.apache.maven.plugins:maven-dependency-plugin:2.8:"

// fetchJars returns the directory of the jars, from the cache if they are
// there.
func (s *Stack) fetchJars(ctx context.Context, j jarSet) (string, error) {
	s.installing.Lock()
	defer s.installing.Unlock()
	what := fmt.Sprintf("%s %s", j.name, j.version)
	dir, err := s.cached(ctx, j.name+"-"+j.version, what+" with mvn", func(temporary string) (string, error) {
		maven, err := s.findMaven(ctx)
		if err != nil {
			return "", err
		}
		files, unpacked := filepath.Join(temporary, "files"), filepath.Join(temporary, "unpacked")
		// A Maven repository of our own: another Maven at work in the user's would
		// be in the way, and everything would stay there a second time.
		args := []string{"--batch-mode", "--quiet", "--strict-checksums", "-Dmaven.repo.local=" + filepath.Join(s.dir, "maven"), "-DoutputDirectory=" + files}
		if j.archive != "" {
			args = append(args, mavenCopy+"copy", "-Dartifact="+j.archive)
		} else {
			pom := filepath.Join(temporary, "pom.xml")
			if err := os.WriteFile(pom, []byte(j.pom()), 0o644); err != nil {
				return "", err
			}
			args = append(args, mavenCopy+"copy-dependencies", "-DincludeScope=runtime", "--file="+pom)
		}
		if err := run(ctx, nil, maven, args...); err != nil {
			return "", err
		}
		if err := verifyAll(files, j.sum); err != nil {
			return "", err
		}
		return unpacked, j.unpack(files, unpacked)
	})
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", what, err)
	}
	return dir, nil
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
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if len(j.services) > 0 {
		if err := writeServices(filepath.Join(files, "unstale-services.jar"), j.services); err != nil {
			return err
		}
	}
	return os.Rename(files, filepath.Join(dir, j.folder()))
}

// folder has the jars of a set that is no archive.
func (j jarSet) folder() string {
	if j.plugin != "" {
		return j.plugin
	}
	return "jars"
}

// writeServices writes a jar that says which classes provide which interfaces.
func writeServices(path string, services map[string]string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	jar := zip.NewWriter(file)
	for service, class := range services {
		entry, createErr := jar.Create("META-INF/services/" + service)
		if createErr == nil {
			_, createErr = io.WriteString(entry, class+"\n")
		}
		err = errors.Join(err, createErr)
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
