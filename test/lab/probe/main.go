// Command probe is the lab's one helper program. Half of it speaks on the
// network (serve, get) and is baked into the container image as /probe; the
// other half holds the lab together (guard, init, enter). It is built static,
// so that the same file runs on the host and in a container with nothing else.
//
//	probe serve [-name N] tcp|udp|sctp ADDR... answer every line with "N peer"
//	probe get [-bind IP[:PORT]] [-timeout D] [-count N -every D] [-lines N] tcp|udp|sctp ADDR
//	probe knock [-every D] [-timeout D] tcp|udp ADDR...  ask over new connections for ever, one line each
//	probe spray -bind IP:PORT udp ADDR         send datagrams for ever, whatever comes back
//	probe segment FLAGS IP:PORT IP:PORT        send one TCP segment that belongs to nothing
//	probe advertise IFACE PREFIX               send router advertisements for ever
//	probe guard -dir D -cgroup NAME -iptables nft|legacy [-root D [-systemd]]
//	probe init  …                              started by guard, as pid 1
//	probe enter [-report FD] PID CMD [ARG...]  run CMD in PID's namespaces
//	probe become PATH CMD [ARG...]             started by enter
//
// For sctp, which the kernel need not have, a line is an INIT and the answer its INIT ACK.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"serve":     serve,
		"get":       get,
		"knock":     knock,
		"spray":     spray,
		"segment":   segment,
		"advertise": advertise,
		"guard":     guard,
		"init":      initialise,
		"enter":     enter,
		"become":    become,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: probe serve|get|knock|spray|segment|advertise|guard|init|enter …")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
