package queue

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Timeouts of a Redis call. A script of ours takes milliseconds, so a Redis that does not answer within callTimeout is
// hung, and a publisher is better told so than kept.
const (
	dialTimeout = 2 * time.Second
	callTimeout = 4 * time.Second
	dials       = 1 // the round trips repeat themselves; a publisher need not wait for more
	// idleTime is for how long a connection is kept that nobody uses: less than what load balancers and servers allow,
	// since that such a one is gone shows, behind TLS, only at its next call.
	idleTime = time.Minute
	// repeats says that go-redis sends nothing a second time by itself: whether a call was repeated must be known, since
	// it may have been executed before its answer got lost. (Redis Cluster's client repeats where nodes change.)
	repeats = -1
	// forever is the patience of a client without a timeout.
	forever = 365 * 24 * time.Hour
)

// go-redis would write a line of its own for every attempt to connect; a shard says once that Redis is away.
//
//nolint:gochecknoinits // one setting for the whole process, which must stand before its first client
func init() { redis.SetLogger(silence{}) }

type silence struct{}

// Printf implements go-redis' logger.
func (silence) Printf(context.Context, string, ...any) {}

// Client is a connection to Redis, whatever it consists of.
type Client = redis.UniversalClient

// Connect makes a client from an address (it does not yet dial):
//
//	redis://[user:password@]host:6379[/db]          one server; rediss:// with TLS
//	redis://[user:password@]host1:6379,host2:6379   Redis Cluster, by some of its nodes
//	redis-sentinel://[user:password@]host1:26379,host2:26379/master[/db]
//	                                                a master watched by Sentinels; rediss-sentinel:// with TLS
//
// Query parameters are those of go-redis (pool_size, read_timeout, ...); besides, sentinel_username and
// sentinel_password where the Sentinels want credentials of their own. Errors never show a password.
func Connect(address string) (Client, error) { return ConnectFor(address, 1) }

// ConnectFor is Connect for a queue of so many shards. Each may keep a connection waiting for a replica or a disk, and
// there must be others for everything else.
func ConnectFor(address string, shards int) (Client, error) {
	pool := 10*runtime.GOMAXPROCS(0) + shards
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return nil, errors.New("no scheme: write redis://host:6379")
	}
	switch p := divide(rest); {
	case scheme == "redis-sentinel" || scheme == "rediss-sentinel":
		return connectSentinel(strings.TrimSuffix(scheme, "-sentinel"), p, pool)
	case scheme != "redis" && scheme != "rediss":
		return nil, errors.New("the scheme is not one of redis, rediss, redis-sentinel, rediss-sentinel")
	case len(p.hosts) > 1:
		return connectCluster(scheme, p, pool)
	default:
		return connectOne(address, p, pool)
	}
}

// patienceOf is how long after the start of a round trip its answer is still heard, with a margin for its way. One that
// waits long for a connection, or sends much, may be heard later: then it has leased nothing, and the next one does.
func patienceOf(c Client) time.Duration {
	timeout := callTimeout
	switch c := c.(type) {
	case *redis.Client:
		timeout = c.Options().ReadTimeout
	case *redis.ClusterClient:
		timeout = c.Options().ReadTimeout
	}
	if timeout <= 0 {
		return forever
	}
	return timeout - timeout/20
}

// parts of an address, still encoded.
type parts struct {
	user  string // with the @ behind it
	hosts []string
	path  string
	query string
}

// unreadable is the parser's error, unless what it stumbled over may be a piece of a password.
func (p parts) unreadable(err error) error {
	if p.user != "" || p.query != "" {
		return errors.New("not an address of Redis: characters other than letters and digits in a password " +
			"must be percent-encoded, and parameters must be ones of go-redis")
	}
	return withoutURL(err)
}

func divide(rest string) parts {
	var p parts
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		p.user, rest = rest[:i+1], rest[i+1:]
	}
	rest, p.query, _ = strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	p.hosts, p.path = strings.Split(hosts, ","), strings.Trim(path, "/")
	return p
}

func connectOne(address string, p parts, pool int) (Client, error) {
	options, err := redis.ParseURL(address)
	if err != nil {
		return nil, p.unreadable(err)
	}
	options.MaxRetries = repeats
	options.DialerRetries = cmp.Or(options.DialerRetries, dials)
	options.PoolSize = cmp.Or(options.PoolSize, pool)
	options.DialTimeout = cmp.Or(options.DialTimeout, dialTimeout)
	options.ReadTimeout = cmp.Or(options.ReadTimeout, callTimeout)
	options.ConnMaxIdleTime = cmp.Or(options.ConnMaxIdleTime, idleTime)
	return redis.NewClient(options), nil
}

func connectCluster(scheme string, p parts, pool int) (Client, error) {
	if p.path != "" && p.path != "0" {
		return nil, errors.New("a Redis Cluster has no numbered databases")
	}
	query, err := url.ParseQuery(p.query)
	if err != nil {
		return nil, p.unreadable(err)
	}
	options, err := redis.ParseClusterURL(p.spread(scheme, "6379", query))
	if err != nil {
		return nil, p.unreadable(err)
	}
	options.DialerRetries = cmp.Or(options.DialerRetries, dials)
	options.PoolSize = cmp.Or(options.PoolSize, pool)
	options.DialTimeout = cmp.Or(options.DialTimeout, dialTimeout)
	options.ReadTimeout = cmp.Or(options.ReadTimeout, callTimeout)
	options.ConnMaxIdleTime = cmp.Or(options.ConnMaxIdleTime, idleTime)
	return redis.NewClusterClient(options), nil
}

func connectSentinel(scheme string, p parts, pool int) (Client, error) {
	master, db, _ := strings.Cut(p.path, "/")
	if master == "" {
		return nil, errors.New("no master's name: write redis-sentinel://host:26379/mymaster")
	}
	query, err := url.ParseQuery(p.query)
	if err != nil {
		return nil, p.unreadable(err)
	}
	query.Set("master_name", master)
	if db != "" {
		query.Set("db", db)
	}
	user, password := query.Get("sentinel_username"), query.Get("sentinel_password")
	query.Del("sentinel_username")
	query.Del("sentinel_password")
	options, err := redis.ParseFailoverURL(p.spread(scheme, "26379", query))
	if err != nil {
		return nil, p.unreadable(err)
	}
	options.Username = cmp.Or(options.Username, options.SentinelUsername)
	options.Password = cmp.Or(options.Password, options.SentinelPassword)
	options.SentinelUsername, options.SentinelPassword = user, password
	options.MaxRetries = repeats
	options.DialerRetries = cmp.Or(options.DialerRetries, dials)
	options.PoolSize = cmp.Or(options.PoolSize, pool)
	options.DialTimeout = cmp.Or(options.DialTimeout, dialTimeout)
	options.ReadTimeout = cmp.Or(options.ReadTimeout, callTimeout)
	options.ConnMaxIdleTime = cmp.Or(options.ConnMaxIdleTime, idleTime)
	return redis.NewFailoverClient(options), nil
}

// spread writes the address as go-redis wants several hosts: the first in its place, the others as addr parameters.
func (p parts) spread(scheme, port string, query url.Values) string {
	hosts := make([]string, len(p.hosts))
	for i, host := range p.hosts {
		hosts[i] = host
		if strings.LastIndexByte(host, ':') <= strings.LastIndexByte(host, ']') {
			hosts[i] += ":" + port
		}
	}
	query["addr"] = append(query["addr"], hosts[1:]...)
	return scheme + "://" + p.user + hosts[0] + "?" + query.Encode()
}

// withoutURL drops the address from a parse error.
func withoutURL(err error) error {
	var bad *url.Error
	if errors.As(err, &bad) {
		return bad.Err
	}
	return err
}
