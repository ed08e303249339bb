// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownNetwork tells this program that it runs in a network of its own.
const ownNetwork = "NEXUS_WEBHOOKS_TEST_OWN_NETWORK"

// In a network in which every address there is, IPv4 and IPv6, public or not, is answered by one listener, no
// connection arrives that the policy refuses, and every other does. The environment names a proxy, which gets none.
func TestThePolicyHoldsOnTheWire(t *testing.T) {
	if os.Getenv(ownNetwork) == "" {
		for _, resolver := range []string{"go", "cgo"} { // they read numbers in their own ways
			t.Run("resolver "+resolver, func(t *testing.T) { inNetworkOfItsOwn(t, resolver) })
		}
		return
	}
	if err := answerEverywhere(); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, reached: map[netip.AddrPort]int{}}
	for _, port := range []string{"22", "80", "443", "3128", "6379", "8443"} {
		w.listen(port)
	}
	t.Run("every kind of address", func(t *testing.T) { w.kinds(t) })
	t.Run("every notation", func(t *testing.T) { w.notations(t) })
	t.Run("names, ports and tricks", func(t *testing.T) { w.tricks(t) })
	if n := w.arrivals("3128"); n != 0 {
		t.Errorf("%d connections to the environment's proxy", n)
	}
	t.Logf("%d requests", w.requests)
}

// inNetworkOfItsOwn runs the test that calls it again, as a process whose network nobody else is in.
func inNetworkOfItsOwn(t *testing.T, resolver string) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+name+"$", "-test.count=1", "-test.v")
	command.Env = append(os.Environ(), ownNetwork+"=1", "GODEBUG=netdns="+resolver,
		"HTTP_PROXY=http://192.0.2.1:3128", "HTTPS_PROXY=http://192.0.2.1:3128", "ALL_PROXY=socks5://192.0.2.1:3128",
		"http_proxy=http://192.0.2.1:3128", "https_proxy=http://192.0.2.1:3128")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 { // who may make no network may where they are root, which is in a namespace of their own
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "PASS") {
		t.Errorf("in a network of its own: %v\n%s", err, output)
	}
	t.Logf("%s", output)
}

// answerEverywhere makes every address one of this machine, which means of this network.
func answerEverywhere() error {
	control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(control) }()
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(control, unix.SIOCSIFFLAGS, loopback); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := routeAllToLoopback(family); err != nil {
			return fmt.Errorf("route everything to lo: %w", err)
		}
	}
	return nil
}

// routeAllToLoopback is `ip route add local default dev lo`.
func routeAllToLoopback(family byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	const header, loopback = unix.SizeofNlMsghdr + unix.SizeofRtMsg, 1
	message := make([]byte, header, header+8)
	route := message[unix.SizeofNlMsghdr:]
	route[0], route[4], route[5], route[6], route[7] = family, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST,
		unix.RTN_LOCAL
	message = binary.NativeEndian.AppendUint16(message, 8)
	message = binary.NativeEndian.AppendUint16(message, unix.RTA_OIF)
	message = binary.NativeEndian.AppendUint32(message, loopback)
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], unix.RTM_NEWROUTE)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("the kernel's answer is too short")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// world is everybody to whom a connection can be made. It hangs up on each, and remembers where it arrived.
type world struct {
	*testing.T
	requests int
	mu       sync.Mutex
	reached  map[netip.AddrPort]int
}

func (w *world) listen(port string) {
	w.Helper()
	listener, err := (&net.ListenConfig{}).Listen(w.Context(), "tcp", ":"+port)
	if err != nil {
		w.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			at := netip.MustParseAddrPort(conn.LocalAddr().String())
			w.mu.Lock()
			w.reached[netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())]++
			w.mu.Unlock()
			_ = conn.Close()
		}
	})
	w.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
}

// take returns where connections arrived since it was last asked.
func (w *world) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var at []string
	for a := range w.reached {
		at = append(at, a.String())
	}
	clear(w.reached)
	slices.Sort(at)
	return at
}

func (w *world) arrivals(port string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, count := range w.reached {
		if strings.HasSuffix(at.String(), ":"+port) {
			n += count
		}
	}
	return n
}

// ways are those by which a request can leave. Each must ask the policy.
func ways(transport *Transport) map[string]func(context.Context, string) error {
	try := func(by http.RoundTripper, body string) func(context.Context, string) error {
		return func(ctx context.Context, url string) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
			if err != nil {
				return err
			}
			res, err := by.RoundTrip(req)
			if err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			return err
		}
	}
	return map[string]func(context.Context, string) error{
		"directly":         try(transport, "{}"),
		"by net/http":      try(transport, strings.Repeat("x", maxDirectBody+1)),
		"as somebody else": try(transport.As(Identity{ID: "other"}), "{}"),
	}
}

// wants checks by every way that a URL is refused for a reason, or reaches one address and no other.
func (w *world) wants(t *testing.T, o Options, url, refused, reached string) {
	t.Helper()
	transport := startTransport(t, o)
	tries := ways(transport)
	for _, way := range slices.Sorted(maps.Keys(tries)) {
		w.requests++
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := tries[way](ctx, url)
		cancel()
		at := strings.Join(w.take(), " and ")
		if at != reached {
			t.Errorf("%s %s: connections arrived at %q, want %q (%v)", url, way, at, reached, err)
		}
		if _, denied := errors.AsType[*DeniedError](err); denied != (refused != "" && refused != anyError) || err == nil ||
			(denied && !strings.Contains(err.Error(), refused)) {
			t.Errorf("%s %s: %v, want refused for %q", url, way, err, refused)
		}
	}
}

// anyError is wanted of what has an address for nobody, or none.
const anyError = "any error"

// kinds tries each address of the policy's own tests.
func (w *world) kinds(t *testing.T) {
	everything := Policy{AllowedNetworks: networks(t, "0.0.0.0/0", "::/0")}
	for _, address := range neverAllowed {
		w.wants(t, Options{Policy: everything}, "https://"+inURL(address)+"/", "never allowed", "")
		w.wants(t, Options{Policy: everything}, "http://"+inURL(address)+"/", "never allowed", "")
	}
	for address, c := range specialAddresses {
		w.wants(t, Options{}, "https://"+inURL(address)+"/", c.kind, "")
		w.wants(t, Options{}, "http://"+inURL(address)+"/", c.kind, "")
		opened := Options{Policy: Policy{AllowedNetworks: networks(t, strings.Split(c.allow, ",")...)}}
		w.wants(t, opened, "https://"+inURL(address)+"/", "", at(address, 443))
		w.wants(t, opened, "http://"+inURL(address)+"/", "", at(address, 80))
	}
	for _, address := range publicAddresses {
		w.wants(t, Options{}, "https://"+inURL(address)+"/", "", at(address, 443))
		w.wants(t, Options{}, "http://"+inURL(address)+"/", "plain http needs an allowed network", "")
	}
}

func inURL(address string) string {
	if strings.Contains(address, ":") {
		return "[" + strings.Replace(address, "%", "%25", 1) + "]"
	}
	return address
}

// at is where a connection to an address arrives.
func at(address string, port uint16) string {
	addr := netip.MustParseAddr(address).Unmap()
	switch {
	case addr.IsMulticast() || address == "255.255.255.255": // there is no connection to many
		return ""
	case addr == netip.IPv4Unspecified():
		addr = netip.MustParseAddr("127.0.0.1")
	case addr == netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(addr, port).String()
}

// notations are those of 169.254.169.254 that some program reads as that address. Go reads few of them, the system's
// resolver more; where one reads none there is no such name.
func (w *world) notations(t *testing.T) {
	resolvers := map[string]*net.Resolver{"the system's": nil, "a server": startDNS(t, map[string][]string{})}
	for name, resolver := range resolvers {
		o := Options{Policy: Policy{AllowedNetworks: networks(t, "0.0.0.0/0", "::/0")}, Resolver: resolver}
		for _, host := range []string{
			"169.254.169.254", "169.254.169.254.", "169.254.43518", "169.16689662", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE",
			"0xa9.0xfe.43518", "0251.0376.0251.0376", "0251.0376.0124776", "025177524776", "0000000251.254.169.254",
			"169.254.169.0376", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]",
			"[::ffff:169.254.169.254%25lo]", "[fe80::1%25lo]", "[fe80::1%251]", "[64:ff9b::a9fe:a9fe]", "①⑥⑨.②⑤④.①⑥⑨.②⑤④",
			"169。254。169。254", "%31%36%39.254.169.254", "user@169.254.169.254", "169.254.169.254:443",
		} {
			for _, scheme := range []string{"http", "https"} {
				url := scheme + "://" + host + "/latest/meta-data/"
				for way, try := range ways(startTransport(t, o)) {
					w.requests++
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					err := try(ctx, url)
					cancel()
					if at := w.take(); len(at) > 0 || err == nil {
						t.Errorf("%s by %s, %s: connections arrived at %v (%v)", url, name, way, at, err)
					}
				}
			}
		}
	}
}

// tricks are URLs whose host is not what a hasty reader sees.
func (w *world) tricks(t *testing.T) {
	resolver := startDNS(t, map[string][]string{
		"hooks.test.": {"203.0.114.1"}, "metadata.google.internal.": {"169.254.169.254"}, "metadata.": {"169.254.169.254"},
		"instance-data.ec2.internal.": {"169.254.169.254", "fd00:ec2::254"}, "metadata6.test.": {"fd20:ce::254"},
		"kubernetes.default.svc.cluster.local.": {"10.96.0.1"}, "mapped.test.": {"::ffff:10.0.0.1"}, "nat64.test.": {"64:ff9b::a00:1"},
		"localtest.test.": {"127.0.0.1", "::1"}, "169.254.169.254.dns.test.": {"169.254.169.254"},
		"some.test.": {"10.0.0.1", "203.0.114.1", "fd00::1"},
	})
	const hooks = "203.0.114.1" // a public address
	cases := map[string]struct{ refused, reached string }{
		"https://hooks.test/":                           {"", hooks + ":443"},
		"https://HOOKS.test./":                          {"", hooks + ":443"},
		"https://hooks.test:8443/":                      {"", hooks + ":8443"},
		"https://hooks.test:22/":                        {"", hooks + ":22"}, // the policy is about addresses, not ports
		"https://10.0.0.1:6379/":                        {"private", ""},
		"http://hooks.test:443/":                        {"plain http", ""},
		"https://hooks.test:0/":                         {anyError, ""},
		"https://hooks.test:65536/":                     {anyError, ""},
		"https://hooks.test:443:80/":                    {anyError, ""},
		"https://hooks.test@10.0.0.1/":                  {"private", ""},
		"https://hooks.test:443@10.0.0.1/":              {"private", ""},
		"https://10.0.0.1@hooks.test/":                  {"", hooks + ":443"},
		"https://hooks.test#@10.0.0.1/":                 {"", hooks + ":443"},
		"https://hooks.test?@10.0.0.1/":                 {"", hooks + ":443"},
		"https://10.0.0.1#@hooks.test/":                 {"private", ""},
		`https://hooks.test\@10.0.0.1/`:                 {anyError, ""},
		"https://hooks.test%2f@10.0.0.1/":               {"private", ""},
		"https://hooks.test%00.10.0.0.1/":               {anyError, ""},
		"https://hooks.test\t10.0.0.1/":                 {anyError, ""},
		"https:10.0.0.1/":                               {anyError, ""},
		"https:///10.0.0.1/":                            {anyError, ""},
		"//10.0.0.1/":                                   {anyError, ""},
		"gopher://10.0.0.1:6379/_FLUSHALL":              {anyError, ""},
		"unix:///run/docker.sock":                       {anyError, ""},
		"https://metadata.google.internal/":             {"never allowed", ""},
		"https://metadata/":                             {"never allowed", ""},
		"https://instance-data.ec2.internal/":           {"never allowed", ""},
		"https://metadata6.test/":                       {"never allowed", ""},
		"https://169.254.169.254.dns.test/":             {"never allowed", ""},
		"https://kubernetes.default.svc.cluster.local/": {"private", ""},
		"https://mapped.test/":                          {"private", ""},
		"https://nat64.test/":                           {"it leads to 10.0.0.1", ""},
		"https://localtest.test/":                       {"loopback", ""},
		"https://localhost/":                            {"loopback", ""},
		"https://some.test/":                            {"", hooks + ":443"}, // of several addresses, the public one
		"https://nowhere.test/":                         {anyError, ""},
	}
	for url, c := range cases {
		w.wants(t, Options{Resolver: resolver}, url, c.refused, c.reached)
	}
}
