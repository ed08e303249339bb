package redistest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Lines as strace prints them, with PATH in place of the file.
func TestWhatAPowerCutLeaves(t *testing.T) {
	tests := map[string]struct {
		trace   string
		size    int // of the file when its process is dead
		left    int64
		refused bool
	}{
		"a completed fsync keeps what was written before it": {
			trace: "7 write(8<PATH>, \"\"..., 10) = 10\n8 fdatasync(8<PATH>)           = 0\n7 write(8<PATH>, \"\"..., 5) = 5",
			size:  15, left: 10,
		},
		"what is written during an fsync is not covered": {
			trace: "7 write(8<PATH>, \"\"..., 10) = 10\n8 fdatasync(8<PATH> <unfinished ...>\n" +
				"7 write(8<PATH>, \"\"..., 5) = 5\n8 <... fdatasync resumed>)         = 0",
			size: 15, left: 10,
		},
		"nor is a write that began before an fsync and ended after its begin": {
			trace: "7 write(8<PATH>, \"\"..., 10 <unfinished ...>\n8 fdatasync(8<PATH> <unfinished ...>\n" +
				"7 <... write resumed>) = 10\n8 <... fdatasync resumed>)         = 0",
			size: 10, left: 0,
		},
		"an fsync that does not return keeps nothing": {
			trace: "7 write(8<PATH>, \"\"..., 10) = 10\n8 fdatasync(8<PATH> <unfinished ...>\n8 <... fdatasync resumed>) = ?",
			size:  10, left: 0,
		},
		"an fsync that fails keeps nothing": {
			trace: "7 write(8<PATH>, \"\"..., 10) = 10\n8 fdatasync(8<PATH>) = -1 EIO (Input/output error)",
			size:  10, left: 0,
		},
		"a write amid which the process dies may have been made": {
			trace: "7 write(8<PATH>, \"\"..., 10) = 10\n7 fsync(8<PATH>) = 0\n7 write(8<PATH>, \"\"..., 5 <unfinished ...>) = ?",
			size:  15, left: 10,
		},
		"what is cut off when the file is read again does not come back": {
			trace: "7 write(8<PATH>, \"\"..., 10) = 10\n7 fsync(8<PATH>) = 0\n7 truncate(\"PATH\", 6) = 0\n7 write(8<PATH>, \"\"..., 3) = 3",
			size:  9, left: 6,
		},
		"what goes elsewhere does not count": {
			trace: "7 write(9<socket:[77]>, \"\"..., 10) = 10\n7 write(1</tmp/redis.log>, \"\"..., 10) = 10\n7 write(8<PATH>, \"\"..., 1) = 1",
			size:  1, left: 0,
		},
		"bytes of which nothing is told are an error": {
			trace: "7 write(8<PATH>, \"\"..., 10) = 10", size: 20, left: 20, refused: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "appendonly.aof.1.incr.aof")
			if err := os.WriteFile(path, make([]byte, test.size), 0o600); err != nil {
				t.Fatal(err)
			}
			d := &disk{files: map[string]*extent{}, pending: map[string]call{}}
			for line := range strings.Lines(test.trace) {
				d.note(strings.ReplaceAll(line, "PATH", path))
			}
			lost, err := d.forget()
			info, failed := os.Stat(path)
			if failed != nil {
				t.Fatal(failed)
			}
			if (err != nil) != test.refused || info.Size() != test.left || lost != int64(test.size)-test.left {
				t.Errorf("%d bytes are left, %d lost, %v; want %d left", info.Size(), lost, err, test.left)
			}
		})
	}
}
