package queue

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/test/redistest"
)

func TestCheckFindsWhatWouldLoseEvents(t *testing.T) {
	cases := map[string]struct {
		args  []string
		say   string // "" for no finding
		fatal bool
	}{
		"nothing is wrong": {args: []string{"--appendonly", "yes"}},
		"a limit that evicts nothing": {
			args: []string{"--appendonly", "yes", "--maxmemory", "2gb", "--maxmemory-policy", "noeviction"},
		},
		"a limit below what the bounds allow": {
			args: []string{"--appendonly", "yes", "--maxmemory", "1gb", "--maxmemory-policy", "noeviction"},
			say:  "maxmemory is 1024 MiB, but the queue may take 1024, its history 256 and",
		},
		"a limit that evicts": {
			args: []string{"--appendonly", "yes", "--maxmemory", "2gb", "--maxmemory-policy", "allkeys-lru"},
			say:  "maxmemory-policy is allkeys-lru", fatal: true,
		},
		"no log on disk": {say: "appendonly is off"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			findings, err := onServer(t, redistest.ForTest(t, c.args...)).queue(t, nil).Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.say == "" {
				if len(findings) > 0 {
					t.Errorf("found %v", findings)
				}
				return
			}
			if len(findings) != 1 || findings[0].Fatal != c.fatal || !strings.Contains(findings[0].Message, c.say) {
				t.Errorf("found %+v, want one, fatal %t, that says %q", findings, c.fatal, c.say)
			}
		})
	}
}

func TestCheckReadsVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"6.0.16": true, "5.0.7": true, "6.2.0": false, "7.0.15": false, "8.4.0": false, "10.0": false, "": false,
	} {
		if got := len(checkVersion(version)) > 0; got != want {
			t.Errorf("version %q is too old: %t, want %t", version, got, want)
		}
	}
}

func TestCheckComparesTheLayout(t *testing.T) {
	p := onServer(t, redistest.ForTest(t, "--appendonly", "yes"))
	q := p.queue(t, nil)
	for range 2 { // the second start finds what the first wrote
		if findings, err := q.Check(t.Context()); err != nil || len(findings) > 0 {
			t.Fatalf("found %v, %v", findings, err)
		}
	}
	p.shards = 4
	findings, err := p.queue(t, nil).Check(t.Context())
	want := []Finding{{"Redis holds a queue of 1 shards but 4 are set: set the former, " +
		"or let it run empty and delete the key " + p.prefix + ":layout", true}}
	if diff := cmp.Diff(want, findings); diff != "" || err != nil {
		t.Errorf("%v, findings (-want +got):\n%s", err, diff)
	}
}

func TestCheckRefusesWhatAnotherVersionWrote(t *testing.T) {
	p := onServer(t, redistest.ForTest(t, "--appendonly", "yes"))
	key := layoutKey(p.prefix)
	want := []Finding{{"Redis holds a queue that another version of the dispatcher wrote: let that version run until it is " +
		"empty, then delete the key " + key, true}}
	for _, layout := range []string{"1", "1/1", "3/1"} {
		p.client.Set(t.Context(), key, layout, 0)
		findings, err := p.queue(t, nil).Check(t.Context())
		if diff := cmp.Diff(want, findings); diff != "" || err != nil {
			t.Errorf("%v, findings (-want +got):\n%s", err, diff)
		}
	}
}

func TestCheckOfACluster(t *testing.T) {
	client, err := Connect(redistest.ClusterForTest(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	findings, err := place{client, newPrefix(), 4}.queue(t, nil).Check(t.Context())
	if err != nil || len(findings) != 1 || !strings.Contains(findings[0].Message, "appendonly") {
		t.Errorf("found %v, %v; want once that appendonly is off", findings, err)
	}
}

func TestCheckOfARedisThatIsAway(t *testing.T) {
	server := redistest.ForTest(t)
	p := onServer(t, server)
	server.Kill()
	if _, err := p.queue(t, nil).Check(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	p := onServer(t, common)
	for name, change := range map[string]func(*Options){
		"no client":       func(o *Options) { o.Client = nil },
		"no name":         func(o *Options) { o.Dispatcher = "" },
		"no registerer":   func(o *Options) { o.Registerer = nil },
		"too many shards": func(o *Options) { o.Shards = 1025 },
		"negative shards": func(o *Options) { o.Shards = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := p.queue(t, nil).Options
			change(&o)
			if _, err := New(o); err == nil {
				t.Error("no error")
			}
		})
	}
}
