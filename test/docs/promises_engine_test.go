//go:build engine

package docs

import (
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// promises are what holds behind commands of the documents, by the command.
var promises = map[string]func(*stage){
	"docker run -d --network web -p 8080:80 nginx": func(s *stage) {
		s.closed(s.near, "192.168.1.2:8080")
	},
	"ufw allow 8080/tcp": func(s *stage) {
		s.open(s.near, "192.168.1.2:8080")
		s.sh("ufw delete allow 8080/tcp")
		s.closes(s.near, "192.168.1.2:8080")
		s.sh("ufw allow 8080/tcp")
	},
	"docker run -d --network name=apart,driver-opt=drawbridge.link=db app": func(s *stage) {
		app := s.docker.Container(s.id("ancestor=app"))
		lab.Eventually(s.t, app, "tcp", "db:5432")
		lab.Blocked(s.t, app, "tcp", "db:80")
	},
	"docker run -d --name till --network shop -p 8080:80 nginx": func(s *stage) {
		s.open(s.near, "192.168.1.2:8080") // past ufw, which has allowed nothing
	},
	"docker network disconnect shop till": func(s *stage) {
		s.closed(s.near, "192.168.1.2:8080")
		s.sh("ufw allow 8080/tcp")
		s.open(s.near, "192.168.1.2:8080")
		s.sh("docker restart -t 0 till")
		s.open(s.near, "192.168.1.2:8080")
	},
	`docker run -d -p 8080:80 --network "name=office,driver-opt=drawbridge.publish=host,driver-opt=drawbridge.publish.from=192.0.2.7 2001:db8:1::/64" nginx`: func(s *stage) {
		s.sh("ufw allow 8080/tcp")
		s.closed(s.near, "192.168.1.2:8080") // who is not 192.0.2.7
	},
	"iptables -I DOCKER-USER -i eth0 ! -s 192.168.1.1 -j DROP": func(s *stage) {
		s.published()
		s.open(s.near, "192.168.1.2:8080")
		s.closed(s.far, "192.168.1.2:8080")
	},
	"iptables -t mangle -I DRAWBRIDGE-USER -i eth0 -p tcp --dport 8080 ! -s 10.0.0.0/8 -j DROP": func(s *stage) {
		s.closed(s.near, "192.168.1.2:8080")
	},
	"docker network inspect web -f '{{range .Containers}}{{println .Name .EndpointID}}{{end}}'": func(s *stage) {
		name, id, _ := strings.Cut(s.said, " ")
		if len(id) < 12 || name != "till" || !strings.Contains(s.sh("drawbridge ports"), id[:12]) {
			s.t.Errorf("docker says %q, and drawbridge ports\n%s", s.said, s.sh("drawbridge ports"))
		}
	},
	"sysctl -w net.ipv4.ip_forward=0": func(s *stage) { // which Docker's own networks want
		s.sh("[ $(sysctl -n net.ipv4.ip_forward) = 0 ] && sysctl -w net.ipv4.ip_forward=1")
	},
	"docker network rm till": func(s *stage) {
		s.open(s.near, "192.168.1.2:8080") // past ufw again
	},
	"conntrack -D -p udp --dport 5353": func(s *stage) {
		if left := s.sh("conntrack -L -p udp --dport 5353"); strings.Contains(left, "dport=5353") {
			s.t.Errorf("left is %s", left)
		}
	},
	"ufw default deny outgoing":                func(s *stage) { s.closes(s.near, "192.168.1.2:8080") },
	"ufw allow out on br-web to 172.24.0.0/16": func(s *stage) { s.open(s.near, "192.168.1.2:8080") },
}

// scenes are what commands find, by the command.
var scenes = map[string]func(*stage){
	"ufw allow 8080/tcp": func(s *stage) { s.web() },
	"docker network inspect web -f '{{range .Containers}}{{println .Name .EndpointID}}{{end}}'": func(s *stage) { s.web() },
	"docker network connect shop till": func(s *stage) { // what the first block of the document comes to
		s.sh("docker network create shop")
		s.sh("docker network create -d drawbridge --ipam-driver drawbridge till")
		s.sh("docker run -d --name till --network till -p 8080:80 nginx")
		s.closed(s.near, "192.168.1.2:8080")
	},
	"conntrack -D -p udp --dport 5353": func(s *stage) {
		s.sh("docker network create -d drawbridge --ipam-driver drawbridge -o drawbridge.publish=dnat web")
		_, err := s.docker.Serve(s.t.Context(), []string{"--network", "web", "-p", "5353:53/udp"}, "udp", ":53")
		s.must(err)
		lab.Eventually(s.t, s.near, "udp", "192.168.1.2:5353")
	},
	"ufw default deny outgoing": func(s *stage) {
		s.web("-o com.docker.network.bridge.name=br-web -o drawbridge.publish=host")
		s.sh("ufw allow 8080/tcp")
		s.open(s.near, "192.168.1.2:8080")
	},
}

// goesOn are commands of blocks that stand for themselves together with the one before.
var goesOn = map[string]bool{
	"cp /var/lib/drawbridge-state.db /var/lib/drawbridge/state.db.new": true,
	"docker start till": true,
}

// projects are what holds while a compose project is up, by words of it.
var projects = map[string]func(*stage){
	"\n  default:\n": func(s *stage) {
		s.closed(s.near, "192.168.1.2:8080")
		s.sh("ufw allow 8080/tcp")
		s.open(s.near, "192.168.1.2:8080")
	},
	"enable_ipv6: true": func(s *stage) {
		s.closed(s.near, "192.168.1.2:8080")
		s.sh("ufw allow 8080/tcp")
		s.open(s.near, "192.168.1.2:8080")
		s.open(s.near, "[2001:db8:1::2]:8080")
	},
	"drawbridge.publish: localhost": func(s *stage) {
		s.sh("ufw allow 8080/tcp")
		s.sh("ufw allow 9090/tcp")
		s.open(s.near, "192.168.1.2:8080")
		s.closed(s.near, "192.168.1.2:9090")
		lab.Eventually(s.t, s, "tcp", "127.0.0.1:9090")
	},
}

// published is a container on a network of ours, to which ufw lets everybody.
func (s *stage) published() {
	s.t.Helper()
	s.web()
	s.sh("ufw allow 8080/tcp")
}

// web is a container on a network of ours, where there is no container yet.
func (s *stage) web(options ...string) {
	s.t.Helper()
	s.sh(`[ -n "$(docker ps -q)" ] || { docker network create -d drawbridge --ipam-driver drawbridge ` + strings.Join(options, " ") +
		` web && docker run -d --name till --network web -p 8080:80 nginx; }`)
}

// id is that of the only container that a filter finds.
func (s *stage) id(filter string) string {
	s.t.Helper()
	id, err := s.docker.Run(s.t.Context(), "ps", "-q", "--filter", filter)
	s.must(err)
	return id
}

// open checks that an address answers, and that the container sees who asks.
func (s *stage) open(c *lab.Client, addr string) {
	s.t.Helper()
	peer := lab.Eventually(s.t, c, "tcp", addr).Peer.Addr()
	if peer != c.Addr4() && peer != c.Addr6() {
		s.t.Errorf("%s saw %v in place of %s's own address", addr, peer, c.Name)
	}
}

// closed checks that an address gives no answer: with DOCKER-USER against it a connection is made, and reset.
func (s *stage) closed(c *lab.Client, addr string) {
	s.t.Helper()
	if reply, err := lab.Get(s.t.Context(), c, lab.Request{Network: "tcp", Addr: addr}); err == nil {
		s.t.Errorf("%s is not closed for %s: %s answered", addr, c.Name, reply.Server)
	}
}

// closes waits until an address does not answer any more: for five seconds at most, in which the daemon hears of a rule.
func (s *stage) closes(c *lab.Client, addr string) {
	s.t.Helper()
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		if _, err := lab.Get(s.t.Context(), c, lab.Request{Network: "tcp", Addr: addr, Timeout: 500 * time.Millisecond}); err != nil {
			return
		}
	}
	s.closed(c, addr)
}
