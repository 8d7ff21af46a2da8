package firewalld

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// busConfig is a bus on which everything is allowed, and which could start a firewalld
// by itself: the one that it would start leaves a mark.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%[1]s/bus</listen>
  <auth>EXTERNAL</auth>
  <servicedir>%[1]s</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

const activation = `[D-BUS Service]
Name=org.fedoraproject.FirewallD1
Exec=/bin/sh -c "echo > %s/activated"
`

// testBus is a private dbus-daemon.
type testBus struct {
	t      *testing.T
	dir    string
	daemon *exec.Cmd
}

// newBus prepares a bus without starting it.
func newBus(t *testing.T) *testBus {
	t.Helper()
	dir, err := os.MkdirTemp("", "fd") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	b := &testBus{t: t, dir: dir}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("bus.conf", fmt.Sprintf(busConfig, dir))
	write("firewalld.service", fmt.Sprintf(activation, dir))
	t.Cleanup(func() {
		b.kill()
		_ = os.RemoveAll(dir)
	})
	return b
}

func startBus(t *testing.T) *testBus {
	t.Helper()
	b := newBus(t)
	b.start()
	return b
}

// start returns when the bus accepts connections.
func (b *testBus) start() {
	b.t.Helper()
	b.daemon = exec.Command("dbus-daemon", "--config-file="+b.dir+"/bus.conf", "--nofork", "--print-address=1")
	var said bytes.Buffer
	b.daemon.Stderr = &said
	out, err := b.daemon.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.daemon.Start(); err != nil {
		b.t.Fatalf("starting dbus-daemon (package dbus): %v", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.kill()
		b.t.Fatalf("dbus-daemon gave no address: %v: %s", err, said.String())
	}
}

// kill ends the bus; its socket file stays, as after a crash.
func (b *testBus) kill() {
	if b.daemon == nil {
		return
	}
	_ = b.daemon.Process.Kill()
	_ = b.daemon.Wait()
	b.daemon = nil
}

func (b *testBus) address() string { return "unix:path=" + b.dir + "/bus" }

func (b *testBus) connect(ctx context.Context) (*dbus.Conn, error) {
	return dbus.Connect(b.address(), dbus.WithContext(ctx))
}

// plane returns the client under test.
func (b *testBus) plane() *Plane {
	return New(Options{Connect: b.connect, Timeout: 5 * time.Second})
}

// fake is a firewalld: it keeps zones and refuses in firewalld's own words.
type fake struct {
	t    *testing.T
	conn *dbus.Conn

	mu        sync.Mutex
	zones     map[string][]string // in force, with their interfaces
	policies  []string            // in force; nil for a version without policies
	permanent map[string]any      // zones and policies by name, with their settings
	broken    bool                // reload does not load the permanent objects
	panicMode bool
	strict    string                 // StrictForwardPorts; "" for a version without it
	writes    []string               // calls that change something, in order
	calls     map[string]int         // by method, refused ones included
	before    func(*fake, string)    // called ahead of each method with its name; may be nil
	refuse    map[string]*dbus.Error // answers to methods, instead of acting
}

// with prepares the fake before it is on the bus.
type with func(*fake)

func zone(name string, links ...string) with {
	return func(f *fake) { f.zones[name] = links; f.permanent[name] = "given" }
}

func policy(name string) with {
	return func(f *fake) { f.policies = append(f.policies, name); f.permanent[name] = "given" }
}

func permanentOnly(name string) with { return func(f *fake) { f.permanent[name] = "given" } }

func noPolicies(f *fake) { f.policies = nil }

func inPanic(f *fake) { f.panicMode = true }

func unable(f *fake) { f.broken = true }

func refusing(method, name, text string) with {
	return func(f *fake) { f.refuse[method] = dbus.NewError(name, []any{text}) }
}

// ahead runs do ahead of one method.
func ahead(of string, do func(*fake)) with {
	return func(f *fake) {
		f.before = func(f *fake, method string) {
			if method == of {
				do(f)
			}
		}
	}
}

// stuck makes one method, or all with "", wait until release is closed.
func stuck(method string, release <-chan struct{}) with {
	return func(f *fake) {
		f.before = func(_ *fake, m string) {
			if method == "" || m == method {
				<-release
			}
		}
	}
}

// withDocker is firewalld as Docker or an earlier pass left it.
func withDocker(links ...string) with {
	return func(f *fake) { zone("docker", links...)(f); policy("docker-forwarding")(f) }
}

// firewalld puts a fake onto the bus.
func (b *testBus) firewalld(given ...with) *fake {
	b.t.Helper()
	f := &fake{
		t:         b.t,
		zones:     map[string][]string{"public": nil, "trusted": nil},
		policies:  []string{"allow-host-ipv6"},
		permanent: map[string]any{},
		refuse:    map[string]*dbus.Error{},
		calls:     map[string]int{},
	}
	for _, g := range given {
		g(f)
	}
	f.join(b)
	b.t.Cleanup(f.leave)
	return f
}

// takeOver lets one fake follow the other without a moment of absence.
const takeOver = dbus.NameFlagDoNotQueue | dbus.NameFlagAllowReplacement | dbus.NameFlagReplaceExisting

// join connects, exports and takes the name.
func (f *fake) join(b *testBus) {
	f.t.Helper()
	conn, err := dbus.Connect(b.address())
	if err != nil {
		f.t.Fatal(err)
	}
	f.conn = conn
	export := func(at dbus.ObjectPath, iface string, methods map[string]any) {
		if err := conn.ExportMethodTable(methods, at, service+iface); err != nil {
			f.t.Fatal(err)
		}
	}
	export(path, "", map[string]any{"getDefaultZone": f.getDefaultZone, "reload": f.reload})
	export(path, ".zone", map[string]any{
		"getZones": f.getZones, "getZoneOfInterface": f.getZoneOfInterface,
		"addInterface": f.addInterface, "removeInterface": f.removeInterface,
	})
	config := map[string]any{"addZone": f.addZone}
	if f.policies != nil {
		export(path, ".policy", map[string]any{"getPolicies": f.getPolicies})
		config["addPolicy"] = f.addPolicy
	}
	export(configPath, ".config", config)
	if f.strict != "" {
		if err := conn.ExportMethodTable(map[string]any{"Get": f.property}, configPath, "org.freedesktop.DBus.Properties"); err != nil {
			f.t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName(service, takeOver); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		f.t.Fatalf("taking firewalld's name: %v %v", reply, err)
	}
}

func (f *fake) property(iface, name string) (dbus.Variant, *dbus.Error) {
	if iface != service+".config" || name != "StrictForwardPorts" {
		return dbus.Variant{}, refusal("no property %s of %s", name, iface)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return dbus.MakeVariant(f.strict), nil
}

func (f *fake) leave() { _ = f.conn.Close() }

// enter begins each method.
func (f *fake) enter(method string) *dbus.Error {
	if f.before != nil {
		f.before(f, method)
	}
	f.mu.Lock()
	f.calls[method]++
	return f.refuse[method]
}

func refusal(format string, args ...any) *dbus.Error {
	return dbus.NewError(service+".Exception", []any{fmt.Sprintf(format, args...)})
}

func (f *fake) wrote(format string, args ...any) {
	f.writes = append(f.writes, fmt.Sprintf(format, args...))
}

func (f *fake) getDefaultZone() (string, *dbus.Error) {
	err := f.enter("getDefaultZone")
	defer f.mu.Unlock()
	return "public", err
}

func (f *fake) getZones() ([]string, *dbus.Error) {
	err := f.enter("getZones")
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.zones)), err
}

func (f *fake) getPolicies() ([]string, *dbus.Error) {
	err := f.enter("getPolicies")
	defer f.mu.Unlock()
	return f.policies, err
}

// zoneOf is called with mu held.
func (f *fake) zoneOf(link string) string {
	for z, links := range f.zones {
		if slices.Contains(links, link) {
			return z
		}
	}
	return ""
}

func (f *fake) getZoneOfInterface(link string) (string, *dbus.Error) {
	err := f.enter("getZoneOfInterface")
	defer f.mu.Unlock()
	return f.zoneOf(link), err
}

func (f *fake) addInterface(zone, link string) (string, *dbus.Error) {
	err := f.enter("addInterface")
	defer f.mu.Unlock()
	links, known := f.zones[zone]
	now := f.zoneOf(link)
	switch {
	case err != nil:
	case f.panicMode:
		err = refusal("PANIC_MODE")
	case !known:
		err = refusal("INVALID_ZONE: %s", zone)
	case now == zone:
		err = refusal("ZONE_ALREADY_SET: '%s' already bound to '%s'", link, zone)
	case now != "":
		err = refusal("ZONE_CONFLICT: '%s' already bound to '%s'", link, now)
	default:
		f.zones[zone] = append(slices.Clip(links), link)
		f.wrote("addInterface %s %s", zone, link)
		err = f.emit("zone.InterfaceAdded", zone, link)
	}
	return zone, err
}

func (f *fake) removeInterface(zone, link string) (string, *dbus.Error) {
	err := f.enter("removeInterface")
	defer f.mu.Unlock()
	now := f.zoneOf(link)
	switch {
	case err != nil:
	case now == "":
		err = refusal("UNKNOWN_INTERFACE: '%s' is not in any zone", link)
	case now != zone:
		err = refusal("ZONE_CONFLICT: remove_interface(%s, %s): zoi='%s'", zone, link, now)
	default:
		f.zones[zone] = slices.DeleteFunc(slices.Clone(f.zones[zone]), func(l string) bool { return l == link })
		f.wrote("removeInterface %s %s", zone, link)
		err = f.emit("zone.InterfaceRemoved", zone, link)
	}
	return zone, err
}

// addZone checks the wire signature too: firewalld takes the settings apart by position.
func (f *fake) addZone(msg dbus.Message, name string, s zoneSettings) (dbus.ObjectPath, *dbus.Error) {
	err := f.enter("addZone")
	defer f.mu.Unlock()
	const want = "s(sssbsasa(ss)asba(ssss)asasasasa(ss)b)"
	if got := msg.Headers[dbus.FieldSignature].Value().(dbus.Signature).String(); got != want {
		return "", refusal("INVALID_TYPE: %s", got)
	}
	return f.add(name, err, s)
}

func (f *fake) addPolicy(name string, settings map[string]dbus.Variant) (dbus.ObjectPath, *dbus.Error) {
	err := f.enter("addPolicy")
	defer f.mu.Unlock()
	plain := map[string]any{}
	for k, v := range settings {
		plain[k] = v.Value()
	}
	return f.add(name, err, plain)
}

func (f *fake) add(name string, err *dbus.Error, settings any) (dbus.ObjectPath, *dbus.Error) {
	switch {
	case err != nil:
		return "", err
	case f.permanent[name] != nil:
		return "", refusal("NAME_CONFLICT: new_object(): '%s'", name)
	}
	f.permanent[name] = settings
	f.wrote("add %s", name)
	return configPath + "/object/1", nil
}

// reload brings the permanent objects into force and keeps the bindings of zones that remain.
func (f *fake) reload() *dbus.Error {
	err := f.enter("reload")
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	f.wrote("reload")
	for name := range f.permanent {
		isPolicy := strings.HasSuffix(name, "-forwarding")
		switch {
		case f.broken:
		case isPolicy && !slices.Contains(f.policies, name):
			f.policies = append(f.policies, name)
		case !isPolicy && f.zones[name] == nil:
			f.zones[name] = []string{}
		}
	}
	return f.emit("Reloaded")
}

// change is firewall-cmd --zone=… --change-interface=…
func (f *fake) change(zone, link string) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for z, links := range f.zones {
		f.zones[z] = slices.DeleteFunc(slices.Clone(links), func(l string) bool { return l == link })
	}
	f.zones[zone] = append(f.zones[zone], link)
	return f.emit("zone.ZoneOfInterfaceChanged", zone, link)
}

func (f *fake) emit(signal string, values ...any) *dbus.Error {
	if err := f.conn.Emit(path, service+"."+signal, values...); err != nil {
		return dbus.MakeFailedError(err)
	}
	return nil
}

// taken returns the writes so far and forgets them.
func (f *fake) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.writes
	f.writes = nil
	return w
}

// called returns how often a method was called.
func (f *fake) called(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// linksOf returns the interfaces of a zone.
func (f *fake) linksOf(zone string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.zones[zone]))
}
