-- A post, and that it was written.
INSERT INTO posts VALUES ({101..120}, {thread}, NULL, '{member}', 'New', NULL, NULL, timestamp '2026-01-20' + {1..500} * interval '1 hour');
INSERT INTO posted VALUES ({41..80}, '{member}', timestamp '2026-01-20' + {1..500} * interval '1 hour', 1);

-- A reply, in the thread of what it answers, and a notice of it.
INSERT INTO posts SELECT {101..120}, thread_id, id, '{member}', 'Reply', NULL, false, timestamp '2026-01-20' + {1..500} * interval '1 hour' FROM posts WHERE id = {post};
INSERT INTO notices SELECT author_id, {4..8}, 'reply' FROM posts WHERE id = {post} AND author_id IS NOT NULL ON CONFLICT (member_id, number) DO UPDATE SET unread = true;

-- A post is edited, another one gets a picture.
UPDATE posts SET body = body || '+' WHERE id = {post};
UPDATE posts SET attachments = '[{"file": "a.png"}]' WHERE id = {post.2};

-- A post is taken back, or shown again.
UPDATE posts SET deleted = CASE WHEN deleted THEN NULL ELSE true END WHERE id = {post};
UPDATE posts SET deleted = false WHERE id = {post.2};

-- A post goes, with its votes and all below it.
DELETE FROM posts WHERE id = {post};

-- Posts move to another thread.
UPDATE posts SET thread_id = {thread} WHERE thread_id = {thread.2} AND id > 60;

-- A reply is put below another post.
UPDATE posts SET parent_id = {post} WHERE id = {post.2};

-- Votes.
INSERT INTO votes VALUES ({post}, '{member}', 1) ON CONFLICT (post_id, member_id) DO UPDATE SET value = excluded.value;
UPDATE votes SET value = -value WHERE member_id = '{member.2}' AND post_id < 30;

-- A vote is taken back, another one goes to another post.
DELETE FROM votes WHERE post_id = {post} AND member_id = '{member}';
UPDATE votes SET post_id = {post.2} WHERE post_id = {post.3} AND member_id = '{member.2}';

-- A thread begins.
INSERT INTO threads VALUES ({31..34}, {board}, '{member}', 'New', 'open', false, 0, timestamp '2026-01-20' + {1..500} * interval '1 hour');
INSERT INTO thread_tags VALUES ({31..34}, '{tag}');

-- A thread is looked at.
UPDATE threads SET views = views + 1 WHERE id IN ({thread}, {thread.2});

-- A thread is locked, hidden, opened, pinned, renamed.
UPDATE threads SET state = (enum_range(NULL::thread_state))[{1..3}] WHERE id = {thread};
UPDATE threads SET pinned = NOT pinned WHERE id = {thread.2};
UPDATE threads SET title = title || '+' WHERE id = {thread.3};

-- A thread moves to another board.
UPDATE threads SET board_id = {board} WHERE id = {thread};

-- A thread goes, with all in it.
DELETE FROM threads WHERE id = {thread};

-- Tags of threads.
INSERT INTO thread_tags VALUES ({thread}, '{tag}') ON CONFLICT DO NOTHING;
DELETE FROM thread_tags WHERE thread_id = {thread.2} AND tag = '{tag.2}';
UPDATE thread_tags SET tag = '{tag.3}' WHERE thread_id = {thread.3} AND tag = 'go';

-- A tag is described, one is renamed with all its threads, one is new.
UPDATE tags SET description = 'about {1..99}' WHERE name = '{tag}';

-- A tag is renamed, with its threads.
UPDATE tags SET name = 'linux' WHERE name = '{tag}';
INSERT INTO tags VALUES ('{tag}', 'again') ON CONFLICT DO NOTHING;

-- A member comes, and says hello.
INSERT INTO members VALUES ('{member}', 'New{1..9}', 'member', NULL, '{"city": "{city}"}', '{day}') ON CONFLICT DO NOTHING;
INSERT INTO posts VALUES ({101..120}, {thread}, NULL, '{member}', 'Hello', NULL, NULL, timestamp '2026-01-20' + {1..500} * interval '1 hour');

-- A member is seen.
UPDATE members SET seen_at = now() WHERE id IN ('{member}', '{member.2}');

-- A member has another name, another city, another role.
UPDATE members SET handle = initcap('{handle}') WHERE id = '{member}';
UPDATE members SET profile = jsonb_set(profile, '{"city"}', '"{city}"') WHERE id = '{member.2}';
UPDATE members SET role = (enum_range(NULL::role))[{1..3}], joined_on = '{day}' WHERE id = '{member.3}';

-- A member is banned, or no longer.
UPDATE members SET banned = NOT banned WHERE id = '{member}';
INSERT INTO moderated VALUES ({111..140}, '{member}', timestamp '2026-01-20' + {1..500} * interval '1 hour', 'ban');

-- A member goes; what was written stays.
DELETE FROM members WHERE id = '{member}';

-- Follows and blocks.
INSERT INTO follows VALUES ('{member}', '{member.2}') ON CONFLICT DO NOTHING;
INSERT INTO follows VALUES ('{member.2}', '{member}') ON CONFLICT DO NOTHING;

-- They end.
DELETE FROM follows WHERE follower_id = '{member}' AND followed_id < '{member.2}';
INSERT INTO blocks VALUES ('{member}', '{other}') ON CONFLICT DO NOTHING;
DELETE FROM blocks WHERE member_id = '{member.3}';

-- Threads are read.
INSERT INTO read_marks SELECT '{member}', t.id, (SELECT coalesce(max(p.id), 0) FROM posts p WHERE p.thread_id = t.id) FROM threads t WHERE t.id IN ({thread}, {thread.2}, {thread.3})
  ON CONFLICT (member_id, thread_id) DO UPDATE SET post_id = excluded.post_id;

-- Notices are read; old ones go.
UPDATE notices SET unread = false WHERE member_id = '{member}';
DELETE FROM notices WHERE member_id = '{member.2}' AND NOT unread;

-- A message.
INSERT INTO messages VALUES ({41..60}, {conversation}, '{member}', 'hello', timestamp '2026-01-20' + {1..500} * interval '1 hour') ON CONFLICT (id) DO UPDATE SET body = 'edited';

-- Somebody comes to a conversation, somebody leaves another one.
UPDATE conversations SET participants = participants || '{member}'::uuid WHERE id = {conversation};
UPDATE conversations SET participants = array_remove(participants, '{member.2}'::uuid) WHERE id = {conversation.2};
UPDATE conversations SET subject = subject || '+' WHERE id = {conversation.3};

-- A conversation goes, with its messages.
DELETE FROM conversations WHERE id = {conversation};
INSERT INTO conversations VALUES ({conversation.2}, ARRAY['{member}', '{member.2}']::uuid[], 'New') ON CONFLICT DO NOTHING;

-- Boards.
UPDATE boards SET title = title || '+' WHERE id = {board};
UPDATE boards SET secret = NOT secret WHERE id = {board.2};
UPDATE boards SET parent_id = {1..2}, position = {1..9} WHERE id = {3..6};

-- What members did is forgotten.
DELETE FROM activity WHERE member_id = '{member}' AND id % 2 = 0;
UPDATE activity SET member_id = '{member.2}' WHERE member_id = '{member.3}';

-- It is given up.
BEGIN;
UPDATE posts SET body = 'never';
DELETE FROM votes;
ROLLBACK;
