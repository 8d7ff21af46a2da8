// Package outage measures what a client of the lab notices of something that goes wrong on its way.
//
// A [Stream] is one connection on which question follows answer: what it lost, TCP has sent again, and what it tells is
// whether it was ever cut, how long the longest wait was, and from which address the server saw it come. It may be a session of UDP too. [Knocks] are new connections, each with a question of its
// own, one every few milliseconds: they tell for how long nobody new was let in, and, of an address that must be closed,
// whether it ever was open.
//
//	s, err := outage.Open(ctx, client, "198.51.100.1:8080")
//	k, err := outage.Knock(ctx, client, 10*time.Millisecond, "tcp", "198.51.100.1:8080")
//	began := time.Now()
//	// … something goes wrong, and comes back …
//	fmt.Println(s.Longest(began, time.Now()), k.Sum(began, time.Now()))
//
// Be aware:
//   - Both go on until their context ends or Close. Either has begun when it returns, but a probe of Knocks may not have knocked yet: see Await.
//   - Of an address that must be closed Try waits less for an answer than Knock does, since there is to be none.
//   - The time of a stream's answers is that at which this program read them. On a busy machine a wait is a few
//     milliseconds longer than it was.
//   - A request of Knocks is counted when it has come to its end, up to [Patience] after it began.
package outage
