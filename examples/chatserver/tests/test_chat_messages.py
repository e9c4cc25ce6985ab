# ruff: noqa: PT009 - Django's test runner does not explain a plain assert
from unittest import TestCase

from chatserver.chat_messages import NOBODY, ChatMessage


class ChatMessageTest(TestCase):
    def test_it_survives_its_way_through_redis(self):
        message = ChatMessage(text='Grüße ☃', sender='john', recipient='mary')
        self.assertEqual(ChatMessage.from_payload(message.to_json().encode()), message)

    def test_what_is_not_ours_is_plain_text_from_nobody(self):
        for payload in (b'hi', b'', b'7', b'[1]', b'{"text": 7}', b'{"other": "x"}', b'\xff', b'{'):
            message = ChatMessage.from_payload(payload)
            self.assertEqual(message.text, payload.decode(errors='replace'))
            self.assertEqual(message.sender, NOBODY)
            self.assertIsNone(message.sent_at_datetime)

    def test_nonsense_as_time_is_no_time(self):
        for nonsense in ('"soon"', '1e99', '-1' + '0' * 30, 'null'):
            payload = f'{{"text": "hi", "sent_at": {nonsense}}}'.encode()
            self.assertIsNone(ChatMessage.from_payload(payload).sent_at_datetime, nonsense)
