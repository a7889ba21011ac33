package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuTimes is the processor time that each side has used so far: all is that of
// everything on the machine, idle what nobody used.
type cpuTimes struct{ reader, postgres, redis, kafka, all, idle time.Duration }

// cpuNow reads the times of this process and of the servers. Where the reader
// is another process, its time is added by who waits for it.
func (b *bench) cpuNow() (t cpuTimes, err error) {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return t, fmt.Errorf("read own processor time: %w", err)
	}
	t.reader = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	if t.postgres, err = treeTime(b.postgres.PID()); err != nil {
		return t, err
	}
	if t.redis, err = treeTime(b.redis.PID()); err != nil {
		return t, err
	}
	if b.pipeline.kafka != nil {
		if t.kafka, err = treeTime(b.pipeline.kafka.PID()); err != nil {
			return t, err
		}
	}
	t.all, t.idle, err = machineTime()
	return t, err
}

func (t cpuTimes) since(before cpuTimes) cpuTimes {
	return cpuTimes{t.reader - before.reader, t.postgres - before.postgres, t.redis - before.redis, t.kafka - before.kafka, t.all - before.all, t.idle - before.idle}
}

// others is the share of the machine that was taken by what is not measured.
func (t cpuTimes) others() float64 {
	if t.all <= 0 {
		return 0
	}
	return max(0, float64(t.all-t.idle-t.reader-t.postgres-t.redis-t.kafka)/float64(t.all))
}

// machineTime reads the first line of /proc/stat: proc(5).
func machineTime() (all, idle time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal; what follows is
	// counted in these already.
	const first, idleAt, iowaitAt, last = 1, 4, 5, 8
	if len(fields) <= last {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i := first; i <= last; i++ {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		all += time.Duration(ticks) * clockTick
		if i == idleAt || i == iowaitAt {
			idle += time.Duration(ticks) * clockTick
		}
	}
	return all, idle, nil
}

// treeTime is the processor time of a process, of its children and of those of
// its children that have ended.
func treeTime(pid int) (time.Duration, error) {
	for {
		_, parent, err := processTime(strconv.Itoa(pid))
		if err != nil {
			return 0, err
		}
		children, err := childrenTime(pid)
		if err != nil {
			return 0, err
		}
		// A child that ended in between would be counted twice or not at all.
		if _, again, err := processTime(strconv.Itoa(pid)); err != nil || again == parent {
			return parent + children, err
		}
	}
}

func childrenTime(pid int) (total time.Duration, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		parent, used, err := processTime(filepath.Base(entry))
		if err == nil && parent == pid { // one that is gone is counted by its parent
			total += used
		}
	}
	return total, nil
}

// clockTick is the unit of /proc/PID/stat: USER_HZ, 100 on every Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// processTime reads /proc/PID/stat: proc(5).
func processTime(pid string) (parent int, used time.Duration, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, 0, err
	}
	// The second field is a name in parentheses and may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const ppid, utime, cstime = 4 - 3, 14 - 3, 17 - 3
	if len(fields) <= cstime {
		return 0, 0, fmt.Errorf("/proc/%s/stat has %d fields", pid, len(fields))
	}
	if parent, err = strconv.Atoi(fields[ppid]); err != nil {
		return 0, 0, err
	}
	for _, field := range fields[utime : cstime+1] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		used += time.Duration(ticks) * clockTick
	}
	return parent, used, nil
}

// A profiler writes CPU profiles of this process into a directory, one for each
// part that is measured in it.
type profiler struct{ dir string }

// during runs do, and writes its profile to dir/name.pprof.
func (p *profiler) during(name string, do func() error) (err error) {
	if p.dir == "" {
		return do()
	}
	file, err := os.Create(filepath.Join(p.dir, name+".pprof"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return do()
}
