-- A forum: members, nested posts, votes, tags, private conversations; what happens is
-- a table with children, notices are a partitioned one.
CREATE TYPE role AS ENUM ('member', 'moderator', 'admin');
CREATE TYPE thread_state AS ENUM ('open', 'locked', 'hidden');
CREATE DOMAIN handle AS text CHECK (length(value) BETWEEN 1 AND 30);

CREATE TABLE members (
  id uuid PRIMARY KEY,
  handle handle NOT NULL,
  role role NOT NULL DEFAULT 'member',
  bio text,
  profile jsonb NOT NULL DEFAULT '{}',
  joined_on date NOT NULL,
  seen_at timestamptz,
  banned boolean NOT NULL DEFAULT false
);
CREATE INDEX ON members (lower(handle));
CREATE TABLE boards (id int PRIMARY KEY, parent_id int REFERENCES boards ON DELETE CASCADE, title text NOT NULL, position int NOT NULL, secret boolean NOT NULL DEFAULT false);
CREATE TABLE threads (
  id bigint PRIMARY KEY,
  board_id int NOT NULL REFERENCES boards ON DELETE CASCADE,
  author_id uuid REFERENCES members ON DELETE SET NULL,
  title text NOT NULL,
  state thread_state NOT NULL DEFAULT 'open',
  pinned boolean NOT NULL DEFAULT false,
  views int NOT NULL DEFAULT 0,
  created_at timestamp NOT NULL
);
CREATE INDEX ON threads (board_id);
CREATE INDEX ON threads (author_id);
CREATE TABLE posts (
  id bigint PRIMARY KEY,
  thread_id bigint NOT NULL REFERENCES threads ON DELETE CASCADE,
  parent_id bigint REFERENCES posts ON DELETE CASCADE,
  author_id uuid REFERENCES members ON DELETE SET NULL,
  body text NOT NULL,
  attachments jsonb,
  deleted boolean,
  created_at timestamp NOT NULL
);
CREATE INDEX ON posts (thread_id);
CREATE INDEX ON posts (parent_id);
CREATE INDEX ON posts (author_id);
CREATE TABLE votes (post_id bigint NOT NULL REFERENCES posts ON DELETE CASCADE, member_id uuid NOT NULL REFERENCES members ON DELETE CASCADE, value smallint NOT NULL, PRIMARY KEY (post_id, member_id));
CREATE INDEX ON votes (member_id);
CREATE TABLE tags (name text PRIMARY KEY, description text);
CREATE TABLE thread_tags (thread_id bigint NOT NULL REFERENCES threads ON DELETE CASCADE, tag text NOT NULL REFERENCES tags ON UPDATE CASCADE ON DELETE CASCADE, PRIMARY KEY (thread_id, tag));
CREATE INDEX ON thread_tags (tag);
CREATE TABLE follows (follower_id uuid NOT NULL REFERENCES members ON DELETE CASCADE, followed_id uuid NOT NULL REFERENCES members ON DELETE CASCADE, PRIMARY KEY (follower_id, followed_id));
CREATE INDEX ON follows (followed_id);
CREATE TABLE blocks (member_id uuid NOT NULL REFERENCES members ON DELETE CASCADE, blocked_id uuid NOT NULL REFERENCES members ON DELETE CASCADE, PRIMARY KEY (member_id, blocked_id));
CREATE TABLE read_marks (member_id uuid NOT NULL REFERENCES members ON DELETE CASCADE, thread_id bigint NOT NULL REFERENCES threads ON DELETE CASCADE, post_id bigint NOT NULL, PRIMARY KEY (member_id, thread_id));
CREATE TABLE conversations (id int PRIMARY KEY, participants uuid[] NOT NULL, subject text NOT NULL);
CREATE TABLE messages (id int PRIMARY KEY, conversation_id int NOT NULL REFERENCES conversations ON DELETE CASCADE, sender_id uuid REFERENCES members ON DELETE SET NULL, body text NOT NULL, sent_at timestamp NOT NULL);
CREATE INDEX ON messages (conversation_id);
CREATE TABLE activity (id int PRIMARY KEY, member_id uuid, at timestamp NOT NULL);
CREATE TABLE posted (post_id bigint, PRIMARY KEY (id)) INHERITS (activity);
CREATE TABLE moderated (reason text, PRIMARY KEY (id)) INHERITS (activity);
CREATE INDEX ON posted (member_id);
CREATE INDEX ON moderated (member_id);
CREATE TABLE notices (member_id uuid NOT NULL, number int NOT NULL, kind text NOT NULL, unread boolean NOT NULL DEFAULT true, PRIMARY KEY (member_id, number)) PARTITION BY HASH (member_id);
CREATE TABLE notices_0 PARTITION OF notices FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE notices_1 PARTITION OF notices FOR VALUES WITH (MODULUS 2, REMAINDER 1);

CREATE VIEW visible_posts AS SELECT * FROM posts WHERE deleted IS NOT TRUE;
CREATE VIEW post_scores AS
  SELECT p.id, p.thread_id, p.author_id, p.body, p.created_at, coalesce(v.score, 0) AS score
  FROM visible_posts p LEFT JOIN (SELECT post_id, sum(value) AS score FROM votes GROUP BY post_id) v ON v.post_id = p.id;

INSERT INTO members SELECT format('00000000-0000-0000-0000-%s', lpad(i::text, 12, '0'))::uuid, 'Member' || i, CASE i % 10 WHEN 0 THEN 'moderator'::role WHEN 9 THEN 'admin' ELSE 'member' END,
  'bio', jsonb_build_object('city', (ARRAY['Rome', 'Oslo', 'Lima'])[1 + i % 3]), date '2026-01-01' + i % 5 FROM generate_series(1, 20) i;
INSERT INTO boards SELECT i, CASE WHEN i > 2 THEN 1 + i % 2 END, 'Board ' || i, i, i = 6 FROM generate_series(1, 6) i;
INSERT INTO threads SELECT i, 1 + i % 6, format('00000000-0000-0000-0000-%s', lpad((1 + i % 20)::text, 12, '0'))::uuid, 'Thread ' || i, (enum_range(NULL::thread_state))[1 + i % 3 * (i % 2)], i % 9 = 0, 0, timestamp '2026-01-01' + i * interval '1 hour' FROM generate_series(1, 30) i;
INSERT INTO posts SELECT i, 1 + i % 30, CASE WHEN i > 30 THEN i - 30 END, format('00000000-0000-0000-0000-%s', lpad((1 + i * 3 % 20)::text, 12, '0'))::uuid, 'Post ' || i, NULL, CASE i % 6 WHEN 0 THEN true WHEN 1 THEN false END, timestamp '2026-01-02' + i * interval '1 hour' FROM generate_series(1, 100) i;
INSERT INTO votes SELECT i, format('00000000-0000-0000-0000-%s', lpad(m::text, 12, '0'))::uuid, CASE (i + m) % 3 WHEN 0 THEN -1 ELSE 1 END FROM generate_series(1, 100) i, generate_series(1, 20) m WHERE (i * m) % 11 = 0;
INSERT INTO tags VALUES ('sql', 'x'), ('go', 'y'), ('redis', NULL), ('cache', 'z');
INSERT INTO thread_tags SELECT t.id, g.name FROM threads t, tags g WHERE (t.id + length(g.name)) % 3 = 0;
INSERT INTO follows SELECT a.id, b.id FROM members a, members b WHERE a.id <> b.id AND (right(a.id::text, 2)::int * 3 + right(b.id::text, 2)::int) % 7 = 0;
INSERT INTO blocks SELECT a.id, b.id FROM members a, members b WHERE a.id <> b.id AND (right(a.id::text, 2)::int * 5 + right(b.id::text, 2)::int) % 19 = 0;
INSERT INTO read_marks SELECT m.id, t.id, 10 + t.id FROM members m, threads t WHERE (right(m.id::text, 2)::int + t.id) % 5 = 0;
INSERT INTO conversations SELECT i, ARRAY(SELECT id FROM members m WHERE right(m.id::text, 2)::int % 10 = i % 10), 'Subject ' || i FROM generate_series(1, 15) i;
INSERT INTO messages SELECT i, 1 + i % 15, (SELECT participants[1] FROM conversations WHERE id = 1 + i % 15), 'hi', timestamp '2026-01-02' + i * interval '1 hour' FROM generate_series(1, 40) i;
INSERT INTO posted SELECT i, format('00000000-0000-0000-0000-%s', lpad((1 + i % 20)::text, 12, '0'))::uuid, timestamp '2026-01-02' + i * interval '1 hour', i FROM generate_series(1, 40) i;
INSERT INTO moderated SELECT i, format('00000000-0000-0000-0000-%s', lpad((1 + i % 20)::text, 12, '0'))::uuid, timestamp '2026-01-02' + i * interval '1 hour', 'spam' FROM generate_series(101, 110) i;
INSERT INTO notices SELECT m.id, n, (ARRAY['reply', 'vote', 'mention'])[n], n < 3 FROM members m, generate_series(1, 3) n;

DO $$ DECLARE t regclass; BEGIN
  FOR t IN SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'tags' LOOP
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t);
  END LOOP;
END $$;
