package queue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/test/redistest"
)

// connection is what a test compares of a client.
type connection struct {
	Kind           string
	Addresses      string
	User, Password string
	DB             int
	TLS            bool
	Pool           int
	Retries        int
	ReadTimeout    time.Duration
}

func describe(client Client) connection {
	switch c := client.(type) {
	case *redis.ClusterClient:
		o := c.Options()
		return connection{"cluster", strings.Join(o.Addrs, " "), o.Username, o.Password, 0, o.TLSConfig != nil, o.PoolSize, 0,
			o.ReadTimeout}
	case *redis.Client:
		o := c.Options()
		return connection{"one", o.Addr, o.Username, o.Password, o.DB, o.TLSConfig != nil, o.PoolSize, o.MaxRetries, o.ReadTimeout}
	default:
		return connection{}
	}
}

func TestConnectReadsAddresses(t *testing.T) {
	const wait = 4 * time.Second
	cases := map[string]struct {
		address string
		want    connection
	}{
		"one server": {"redis://host:6379?pool_size=5",
			connection{"one", "host:6379", "", "", 0, false, 5, 0, wait}},
		"one server with a database, credentials and a timeout": {"redis://me:p%40ss@host:6380/3?pool_size=5&read_timeout=7s",
			connection{"one", "host:6380", "me", "p@ss", 3, false, 5, 0, 7 * time.Second}},
		"the port may be left out": {"redis://host?pool_size=5",
			connection{"one", "host:6379", "", "", 0, false, 5, 0, wait}},
		"TLS": {"rediss://host:6379?pool_size=5",
			connection{"one", "host:6379", "", "", 0, true, 5, 0, wait}},
		"a comma in a password does not make a cluster": {"redis://:a,b@host:6379?pool_size=5",
			connection{"one", "host:6379", "", "a,b", 0, false, 5, 0, wait}},
		"nor does one in a parameter": {"redis://host:6379?client_name=a,b&pool_size=5",
			connection{"one", "host:6379", "", "", 0, false, 5, 0, wait}},
		"a cluster": {"redis://:secret@one:7000,two:7001,three/?pool_size=5",
			connection{"cluster", "one:7000 two:7001 three:6379", "", "secret", 0, false, 5, 0, wait}},
		"a cluster's only database": {"redis://one:7000,two:7001/0?pool_size=5",
			connection{"cluster", "one:7000 two:7001", "", "", 0, false, 5, 0, wait}},
		"a cluster of IPv6 addresses": {"redis://[::1]:7000,[::2]?pool_size=5",
			connection{"cluster", "[::1]:7000 [::2]:6379", "", "", 0, false, 5, 0, wait}},
		"Sentinels": {"redis-sentinel://:secret@one,two:26380/main/2?pool_size=5",
			connection{"one", "FailoverClient", "", "secret", 2, false, 5, 0, wait}},
		"Sentinels with TLS and credentials of their own": {
			"rediss-sentinel://me:secret@one:26379/main?pool_size=5&sentinel_password=other",
			connection{"one", "FailoverClient", "me", "secret", 0, true, 5, 0, wait}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client, err := Connect(c.address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			if diff := cmp.Diff(c.want, describe(client)); diff != "" {
				t.Errorf("connection (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConnectRefuses(t *testing.T) {
	cases := map[string]struct{ address, want string }{
		"no scheme":                  {"host:6379", "no scheme"},
		"a scheme of something else": {"http://hunter2@host", "not one of redis"},
		"a password not encoded":     {"redis://:hunter2/x@host:6379", "percent-encoded"},
		"a password before a path":   {"redis://:12/hunter2@host:6379", "percent-encoded"},
		"a password with a %":        {"redis://:%hunter2@host:6379", "percent-encoded"},
		"a password with a ?":        {"redis://:ab?hunter2@host:6379", "percent-encoded"},
		"an unknown parameter":       {"redis://host:6379?hunter2=1", "parameters must be"},
		"a database that is none":    {"redis://host:6379/first", "database"},
		"a database of a cluster":    {"redis://:hunter2@one,two/3", "no numbered databases"},
		"a cluster's bad parameter":  {"redis://:hunter2@one,two?pool_size=many", "parameters must be"},
		"Sentinels without master":   {"redis-sentinel://:hunter2@one:26379", "no master's name"},
		"Sentinels' bad database":    {"redis-sentinel://:hunter2@one:26379/main/x", "not an address"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client, err := Connect(c.address)
			if err == nil {
				_ = client.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want it to say %q", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q shows the password", err)
			}
		})
	}
}

func FuzzConnectHidesPasswords(f *testing.F) {
	for _, seed := range []string{"redis://:%s@host:6379", "redis://u:%s@a,b:1/0", "redis-sentinel://:%s@h/m", "%s"} {
		f.Add(seed, "x/y")
	}
	f.Fuzz(func(t *testing.T, address, noise string) {
		const password = "Tr0ub4dor"
		address = strings.ReplaceAll(address, "%s", noise+password+noise)
		client, err := Connect(address)
		if err == nil {
			_ = client.Close()
			return
		}
		if strings.Contains(address, "@") && strings.Contains(err.Error(), password) {
			t.Errorf("Connect(%q) = %q", address, err)
		}
	})
}

func FuzzTargetsSurviveTheirReceipt(f *testing.F) {
	f.Add("sub_1", "d1", "sub_2", "d2")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		for _, word := range []string{a, b, c, d} {
			if len(strings.Fields(word)) != 1 || strings.Fields(word)[0] != word {
				return // ids have no spaces
			}
		}
		want := []Target{{a, b}, {c, d}}
		if diff := cmp.Diff(want, decodeTargets(encodeTargets(want))); diff != "" {
			t.Errorf("targets (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseRecordReadsWhatTheScriptsWrite(f *testing.F) {
	f.Add("s1", uint16(2), uint16(0), int64(1000000), uint32(4), "e1#1000000")
	f.Add("s1", uint16(7), uint16(6), int64(1000000), uint32(4), "e1:2|3")
	f.Fuzz(func(t *testing.T, sub string, attempts, base uint16, created int64, size uint32, event string) {
		if strings.Contains(sub, "|") {
			return // ids have none
		}
		more := ""
		if base > 0 {
			more = fmt.Sprintf(":%d:1:%s:c", base, event[:strings.IndexAny(event+"|", "|:")])
		}
		record := fmt.Sprintf("%s|%d%s|%d|%d|build.completed|%s", sub, attempts, more, created, size, event)
		want := Lease{
			SubscriptionID: sub, EventID: event, Attempt: int(attempts) + 1, Base: int(base), CreatedAt: time.UnixMilli(created),
		}
		if diff := cmp.Diff(want, parseRecord(record), cmpopts.IgnoreUnexported(Lease{})); diff != "" {
			t.Errorf("record %q (-want +got):\n%s", record, diff)
		}
	})
}

// A connection that Redis refuses is an error of every command, and no empty answer.
func TestARefusedConnectionIsNoAnswer(t *testing.T) {
	server := redistest.ForTest(t)
	administrator := server.Client()
	t.Cleanup(func() { _ = administrator.Close() })
	if err := administrator.ConfigSet(t.Context(), "requirepass", "right").Err(); err != nil {
		t.Fatal(err)
	}
	client, err := Connect("redis://:wrong@" + server.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q := place{client, newPrefix(), 1}.queue(t, nil)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "WRONGPASS") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err = q.Find(t.Context(), "0199aa00-0000-7000-8000-000000000001")
	refused("find", err)
	_, err = q.CancelDelivery(t.Context(), "d1")
	refused("cancel", err)
	_, err = q.Bodies(t.Context(), []Body{{key: "e1"}})
	refused("bodies", err)
}
