// Package lab makes throw-away machines for tests and demonstrations: a real
// dockerd, a real firewalld and real packets, with nothing of it touching the
// machine it runs on.
//
// A Host has net, mount, pid, uts and ipc namespaces of its own. Its /run, its
// /etc, /var/lib and /var/log are private: programs find their sockets, locks
// and configuration at the usual paths and nobody else sees them. Outside
// machines (Client) stand on links (Uplink) around it.
//
//	h, err := lab.New(ctx, lab.Options{})
//	defer h.Close()
//	_, err = h.StartDBus(ctx)
//	_, err = h.StartFirewalld(ctx)
//	d, err := h.StartDocker(ctx, lab.DockerOptions{})
//	client, err := h.AddClient(ctx, "alice", lab.ClientOptions{})
//	web, err := d.Serve(ctx, []string{"--name", "web", "-p", "8080:80"}, "tcp", ":80")
//	reply, err := lab.Get(ctx, client, lab.Request{Network: "tcp", Addr: "198.51.100.1:8080"})
//	// reply.Peer is the source address that the container saw
//
// A Host has the programs of the machine it runs on, or with Options.Root those
// of Debian 13: a newer dockerd, firewalld and iptables. Such a root is made
// beforehand by root.sh (make deps), below /var/cache/drawbridge-lab, once for
// each text of the script; what an older text has made may be deleted by hand,
// and so may the newest one, to have its packages made anew. Labs share it and
// write to it only in memory. Of the machine's files they see the scratch
// directory and what Options.Share names. Own is the machine's root in this way.
//
// In tests Up makes the Host, closes it at the end and shows the daemons' logs
// on failure; Reaches, Eventually, Refused, Dropped, Blocked and Pings read as
// what they check.
//
// StartUFW turns ufw on, as it is after its installation; UFW has it allow,
// deny and reload. What whole firewalls let in is in test/hostfirewall.
//
// With Options.Systemd pid 1 is systemd, which sees a cgroup of its own as the whole tree. It has started nothing
// but D-Bus and the journal; docker.service and whatever else the root has are started, enabled
// and stopped with systemctl. Engine then takes the place of StartDocker.
//
// A program of one's own runs inside with Start; its files are seen at their
// real paths (only the trees above are private; in another root, what is
// shared), and Path gives the way from outside to a file in the lab, sockets
// included.
//
// Be aware:
//   - It needs root, Debian's packages (test/install.sh) and the go command,
//     which builds the helper program in the folder probe.
//   - The lab ends with the program that made it, even when that is killed: a
//     guard process outside waits for the end of a pipe, then kills the pid
//     namespace and removes cgroups and scratch files.
//   - Kernel modules and sysctls outside net.* are the machine's. Set none.
package lab
