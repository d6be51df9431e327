package mongotest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/xdg-go/scram"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	opReply = 1
	opQuery = 2004
	opMsg   = 2013
)

type conn struct {
	*Server
	net.Conn
	login *scram.ServerConversation
	in    bool
}

func (c *conn) run() {
	for {
		id, op, body, err := c.receive()
		if err != nil {
			return
		}
		var cmd bson.D
		if op == opMsg {
			cmd, err = parseMsg(body)
		} else if op == opQuery {
			cmd, err = parseQuery(body)
		}
		if err != nil || len(cmd) == 0 {
			return
		}
		answer, alive := c.handle(cmd)
		if !alive || c.send(id, op, answer) != nil {
			return
		}
	}
}

func (c *conn) receive() (id, op uint32, body []byte, err error) {
	var head [16]byte
	if _, err = io.ReadFull(c.Conn, head[:]); err != nil {
		return
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n < 16 || n > 48<<20 {
		return 0, 0, nil, errors.New("bad length")
	}
	body = make([]byte, n-16)
	_, err = io.ReadFull(c.Conn, body)
	return binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:]), body, err
}

// parseMsg puts the sections of a message together as one command.
func parseMsg(p []byte) (bson.D, error) {
	var cmd, more bson.D
	for p = p[4:]; len(p) > 4; {
		kind := p[0]
		p = p[1:]
		n := int(binary.LittleEndian.Uint32(p))
		if n < 5 || n > len(p) {
			return nil, errors.New("bad section")
		}
		part := p[:n]
		p = p[n:]
		if kind == 0 {
			if err := bson.Unmarshal(part, &cmd); err != nil {
				return nil, err
			}
			continue
		}
		name, docs, _ := bytes.Cut(part[4:], []byte{0})
		var list bson.A
		for len(docs) > 4 {
			n := int(binary.LittleEndian.Uint32(docs))
			if n < 5 || n > len(docs) {
				return nil, errors.New("bad document")
			}
			var d bson.D
			if err := bson.Unmarshal(docs[:n], &d); err != nil {
				return nil, err
			}
			list = append(list, d)
			docs = docs[n:]
		}
		more = append(more, bson.E{Key: string(name), Value: list})
	}
	return append(cmd, more...), nil
}

// parseQuery reads the message that a client begins with.
func parseQuery(p []byte) (bson.D, error) {
	_, rest, ok := bytes.Cut(p[4:], []byte{0})
	if !ok || len(rest) < 8 {
		return nil, errors.New("bad query")
	}
	var cmd bson.D
	err := bson.Unmarshal(rest[8:], &cmd)
	return cmd, err
}

func (c *conn) send(to, op uint32, answer bson.D) error {
	doc, err := bson.Marshal(answer)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	put := func(v uint32) { binary.Write(&b, binary.LittleEndian, v) }
	if op == opQuery {
		put(uint32(36 + len(doc)))
		put(1)
		put(to)
		put(opReply)
		put(8)
		put(0)
		put(0)
		put(0)
		put(1)
	} else {
		put(uint32(21 + len(doc)))
		put(1)
		put(to)
		put(opMsg)
		put(0)
		b.WriteByte(0)
	}
	b.Write(doc)
	_, err = c.Conn.Write(b.Bytes())
	return err
}

func fail(code int32, text string) bson.D {
	return bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: text}, {Key: "code", Value: code}}
}

// handle answers a command; false if the connection is to break.
func (c *conn) handle(cmd bson.D) (bson.D, bool) {
	name := cmd[0].Key
	switch name {
	case "hello", "isMaster", "ismaster":
		return bson.D{{Key: "helloOk", Value: true}, {Key: "isWritablePrimary", Value: true}, {Key: "ismaster", Value: true}, {Key: "maxBsonObjectSize", Value: int32(16 << 20)},
			{Key: "maxMessageSizeBytes", Value: int32(48 << 20)}, {Key: "maxWriteBatchSize", Value: int32(100000)}, {Key: "minWireVersion", Value: int32(0)},
			{Key: "maxWireVersion", Value: int32(21)}, {Key: "readOnly", Value: false}, {Key: "ok", Value: 1.0}}, true
	case "saslStart", "saslContinue":
		return c.authenticate(name, cmd), true
	}
	if !c.in {
		return fail(13, "command "+name+" requires authentication"), true
	}
	c.mu.Lock()
	c.calls[name]++
	var f Fault
	if c.fault != nil {
		f = c.fault(name)
	}
	c.mu.Unlock()
	time.Sleep(f.Delay)
	if f.Before {
		return nil, false
	}
	if f.Code != 0 {
		return fail(f.Code, "a fault of the test"), true
	}
	answer := c.command(cmd)
	return answer, !f.After
}

func (c *conn) authenticate(name string, cmd bson.D) bson.D {
	if name == "saslStart" {
		if m, _ := lookup(cmd, "mechanism").(string); m != "SCRAM-SHA-256" {
			return fail(2, "unsupported mechanism")
		}
		server, err := scram.SHA256.NewServer(func(user string) (scram.StoredCredentials, error) {
			if user != User {
				return scram.StoredCredentials{}, errors.New("no such user")
			}
			return c.log, nil
		})
		if err != nil {
			return fail(1, err.Error())
		}
		c.login = server.NewConversation()
	}
	payload, _ := lookup(cmd, "payload").(bson.Binary)
	if c.login == nil {
		return fail(17, "no log-in has begun")
	}
	if c.login.Done() {
		return bson.D{{Key: "conversationId", Value: int32(1)}, {Key: "done", Value: true}, {Key: "payload", Value: bson.Binary{}}, {Key: "ok", Value: 1.0}}
	}
	text, err := c.login.Step(string(payload.Data))
	if err != nil {
		return fail(18, "Authentication failed.")
	}
	c.in = c.login.Valid()
	return bson.D{{Key: "conversationId", Value: int32(1)}, {Key: "done", Value: false}, {Key: "payload", Value: bson.Binary{Data: []byte(text)}}, {Key: "ok", Value: 1.0}}
}
