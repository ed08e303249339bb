package queue

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Timeouts of a Redis call. A script of ours takes milliseconds, so a Redis that does not answer within callTimeout is
// hung, and a publisher is better told so than kept.
const (
	dialTimeout = 2 * time.Second
	callTimeout = 4 * time.Second
)

// Client is a connection to Redis, whatever it consists of.
type Client = redis.UniversalClient

// Connect makes a client from an address (it does not yet dial):
//
//	redis://[user:password@]host:6379[/db]             one server; rediss:// with TLS
//	redis://host1:6379,host2:6379                      Redis Cluster, by some of its nodes
//	redis-sentinel://host1:26379,host2:26379/master[/db]   a master watched by Sentinels; rediss-sentinel:// with TLS
//
// Query parameters are those of go-redis (pool_size, read_timeout, ...). Errors never show the password.
func Connect(address string) (Client, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return nil, errors.New("no scheme: write redis://host:6379")
	}
	switch scheme {
	case "redis", "rediss":
		if hosts, _, _ := strings.Cut(rest, "/"); strings.Contains(hosts, ",") {
			return connectCluster(scheme, rest)
		}
		return connectOne(address)
	case "redis-sentinel", "rediss-sentinel":
		return connectSentinel(strings.TrimSuffix(scheme, "-sentinel"), rest)
	default:
		return nil, fmt.Errorf("scheme %q is not one of redis, rediss, redis-sentinel, rediss-sentinel", scheme)
	}
}

func connectOne(address string) (Client, error) {
	options, err := redis.ParseURL(address)
	if err != nil {
		return nil, withoutURL(err)
	}
	options.MaxRetries = 1
	options.DialTimeout = orDefault(options.DialTimeout, dialTimeout)
	options.ReadTimeout = orDefault(options.ReadTimeout, callTimeout)
	return redis.NewClient(options), nil
}

func connectCluster(scheme, rest string) (Client, error) {
	options, err := redis.ParseClusterURL(spread(scheme, rest, ""))
	if err != nil {
		return nil, withoutURL(err)
	}
	options.DialTimeout = orDefault(options.DialTimeout, dialTimeout)
	options.ReadTimeout = orDefault(options.ReadTimeout, callTimeout)
	return redis.NewClusterClient(options), nil
}

func connectSentinel(scheme, rest string) (Client, error) {
	hosts, path, _ := strings.Cut(rest, "/")
	path, query, _ := strings.Cut(path, "?")
	master, db, _ := strings.Cut(path, "/")
	if master == "" {
		return nil, errors.New("no master's name: write redis-sentinel://host:26379/mymaster")
	}
	extra := url.Values{"master_name": {master}}
	if db != "" {
		extra.Set("db", db)
	}
	if query != "" {
		hosts += "?" + query
	}
	options, err := redis.ParseFailoverURL(spread(scheme, hosts, extra.Encode()))
	if err != nil {
		return nil, withoutURL(err)
	}
	options.MaxRetries = 1
	options.DialTimeout = orDefault(options.DialTimeout, dialTimeout)
	options.ReadTimeout = orDefault(options.ReadTimeout, callTimeout)
	return redis.NewFailoverClient(options), nil
}

// spread writes host1,host2,... as go-redis wants them: the first in its place, the others as addr parameters.
func spread(scheme, rest, extra string) string {
	rest, query, _ := strings.Cut(rest, "?")
	user, hosts, found := strings.Cut(rest, "@")
	if !found {
		user, hosts = "", rest
	} else {
		user += "@"
	}
	list := strings.Split(strings.TrimSuffix(hosts, "/"), ",")
	params := make([]string, 0, len(list)+1)
	for _, host := range list[1:] {
		params = append(params, "addr="+url.QueryEscape(host))
	}
	for _, p := range []string{query, extra} {
		if p != "" {
			params = append(params, p)
		}
	}
	return scheme + "://" + user + list[0] + "?" + strings.Join(params, "&")
}

// withoutURL drops the address, which may hold a password, from a parse error.
func withoutURL(err error) error {
	var bad *url.Error
	if errors.As(err, &bad) {
		return bad.Err
	}
	return err
}

func orDefault(value, otherwise time.Duration) time.Duration {
	if value == 0 {
		return otherwise
	}
	return value
}
