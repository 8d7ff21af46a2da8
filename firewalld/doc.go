// Package firewalld keeps Drawbridge's bridges in firewalld's zone "docker", over
// D-Bus.
//
// On a host with firewalld, traffic of an interface that is in no zone is judged by the
// default zone, which as a rule rejects what is forwarded. Docker therefore has a zone
// of its own, "docker" (target ACCEPT), and since version 27 a policy,
// "docker-forwarding" (from any zone to that one, target ACCEPT). [Plane.Apply] makes the
// same two objects under the same names if they are missing, so that Docker and
// Drawbridge share them, and puts the bridge of each network into the zone. With that,
// firewalld leaves the containers' traffic to the rules of the firewall package.
//
// [Plane.Watch] reports what calls for another pass: firewalld was started, stopped,
// restarted or reloaded, or the system bus itself came back.
//
// # What is written, and where
//
// The zone and the policy are permanent configuration (files under /etc/firewalld) and
// need one reload of firewalld when they are made. Bindings of bridges are runtime
// only: they go with firewalld, and a restart of firewalld triggers a pass that
// makes them again. Nothing else of firewalld is changed, and nothing at all is written when
// all is as it should be. firewalld's direct interface (passthrough) is never used:
// it would make firewalld flush foreign rules on reload.
//
// # Be aware
//
// A host without system bus, or without firewalld on it, is a host like any other:
// there is nothing to do and that is no error. Calls are sent so that the bus
// does not start a firewalld that is installed but stopped.
//
// The reload drops what the admin configured at runtime only, as it does when Docker
// makes the zone. It happens once in the life of a host.
package firewalld
