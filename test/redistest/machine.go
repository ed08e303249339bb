package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Programs that serve. Debian's Redis is older than WAITAOF, which came with Redis 7.2 and which Valkey knows.
const (
	Redis  = "redis-server"
	Valkey = "valkey-server"
)

// Machine is a server whose machine can lose its power. strace tells which bytes of its append-only file a completed
// fsync covers; a process that is killed would leave the others to the system. The server never rewrites the file.
type Machine struct{ *Server }

// MachineForTest starts one of the Programs, which ends with the test, on a disk that takes so long for each fdatasync.
func MachineForTest(t testing.TB, program string, sync time.Duration, args ...string) *Machine {
	t.Helper()
	s, err := newServer(program, t.TempDir(), append([]string{
		"--appendonly", "yes", "--auto-aof-rewrite-percentage", "0",
	}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.disk = &disk{delay: sync, files: map[string]*extent{}}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return &Machine{s}
}

// LosePower kills the server and takes from its append-only file all that no completed fsync covers, so many bytes.
func (m *Machine) LosePower() (lost int64, err error) {
	m.Kill()
	<-m.disk.ended
	if m.disk.err != nil {
		return 0, fmt.Errorf("read what strace tells: %w", m.disk.err)
	}
	return m.disk.forget()
}

// disk is what a power cut would leave of a server's append-only files. Only who has seen ended closed may read it.
type disk struct {
	delay   time.Duration
	files   map[string]*extent
	pending map[string]call // by thread
	ended   chan struct{}   // closed when the server and what traces it are gone
	err     error
}

// extent of a file, in bytes: all that was written, and what the disk has for certain.
type extent struct{ written, synced int64 }

// call of the system that has not returned.
type call struct {
	name, path string
	size       int64 // that is to be written, or truncated to
	covered    int64 // written when it began
}

// trace has cmd run under strace, as the same process. The caller closes what it returns once cmd runs.
func (d *disk) trace(cmd *exec.Cmd) (io.Closer, error) {
	if d.ended != nil {
		<-d.ended // the one before, who still reads what its strace tells
	}
	strace, err := find("strace")
	if err != nil {
		return nil, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for strace: %w", err)
	}
	const inherited = 3 // is the first of ExtraFiles
	cmd.ExtraFiles = []*os.File{writer}
	cmd.Args = append([]string{
		strace, "--daemonize", "--follow-forks", "--seccomp-bpf", "--decode-fds=path", "--string-limit=0",
		"--trace=write,fdatasync,fsync,truncate,ftruncate", "--signal=none",
		"--inject=fdatasync:delay_enter=" + strconv.FormatInt(d.delay.Microseconds(), 10),
		"--output=/dev/fd/" + strconv.Itoa(inherited), cmd.Path,
	}, cmd.Args[1:]...)
	cmd.Path = strace
	d.pending, d.ended = map[string]call{}, make(chan struct{})
	go func() {
		defer close(d.ended)
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			d.note(lines.Text())
		}
		d.err = errors.Join(lines.Err(), reader.Close())
	}()
	return writer, nil
}

var (
	// A call that begins: its thread, name, file and, where there is one, the last argument.
	begins = regexp.MustCompile(`^(\d+) +(\w+)\((?:\d+<([^>]*)>|"([^"]*)")(?:.*, (\d+))?`)
	// One that returns, in the same line or later.
	returns = regexp.MustCompile(`^(\d+) .*\) += (-?\d+)`)
)

// note follows one line. strace holds a thread at the begin and at the end of a call until it has told so: a write of
// which it told the end before the begin of an fsync is covered by that.
func (d *disk) note(line string) {
	if found := begins.FindStringSubmatch(line); found != nil {
		path := found[3] + found[4]
		if !strings.Contains(filepath.Base(path), "aof") { // sockets and the log
			return
		}
		if d.files[path] == nil {
			d.files[path] = &extent{}
		}
		size, _ := strconv.ParseInt(found[5], 10, 64)
		d.pending[found[1]] = call{found[2], path, size, d.files[path].written}
	}
	if found := returns.FindStringSubmatch(line); found != nil {
		result, _ := strconv.ParseInt(found[2], 10, 64)
		d.complete(d.pending[found[1]], result)
		delete(d.pending, found[1])
	}
}

func (d *disk) complete(c call, result int64) {
	file := d.files[c.path]
	if file == nil || result < 0 {
		return
	}
	switch c.name {
	case "write":
		file.written += result
	case "fdatasync", "fsync":
		file.synced = max(file.synced, c.covered)
	case "truncate", "ftruncate":
		file.written = c.size
		file.synced = min(file.synced, c.size)
	}
}

// forget truncates the files to what was synced.
func (d *disk) forget() (lost int64, err error) {
	for path, file := range d.files {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && file.synced == file.written {
			continue // it was written as a whole and has another name now
		}
		if err != nil {
			return lost, fmt.Errorf("look at what Redis wrote: %w", err)
		}
		if size := info.Size(); size < file.written || size > file.written+d.underWay(path) {
			return lost, fmt.Errorf("%s has %d bytes, and strace tells of %d", path, size, file.written)
		}
		if err := os.Truncate(path, file.synced); err != nil {
			return lost, fmt.Errorf("lose what was not synced: %w", err)
		}
		lost += info.Size() - file.synced
		file.written = file.synced
	}
	return lost, nil
}

// underWay is what a call was writing when its process died.
func (d *disk) underWay(path string) (size int64) {
	for _, c := range d.pending {
		if c.path == path && c.name == "write" {
			size += c.size
		}
	}
	return size
}
