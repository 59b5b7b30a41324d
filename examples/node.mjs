/**
 * Live captions of a WAV file with Node.js.
 *
 *     npm install ws
 *     node node.mjs speech.wav
 *
 * The file: PCM16, mono, 16, 8, 24 or 48 kHz. A key goes into DASHSCOPE_API_KEY, if the server wants one.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket from 'ws';

const URL = process.env.AURICLE_URL ?? 'ws://localhost:8001/api-ws/v1/realtime';
const KEY = process.env.DASHSCOPE_API_KEY ?? 'none';
const MODEL = 'qwen3-asr-flash-realtime';

const wav = readFileSync(process.argv[2]);
const rate = wav.readUInt32LE(24);
const pcm = wav.subarray(wav.indexOf('data') + 8); // after the name of the chunk and its length

const socket = new WebSocket(`${URL}?model=${MODEL}`, { headers: { Authorization: `Bearer ${KEY}` } });
const send = (type, fields) => socket.send(JSON.stringify({ type, ...fields }));
const show = (text) => process.stdout.write(`\r\x1b[K${text}`);

socket.on('open', async () => {
  // Left out, turn_detection keeps the server's: it finds the utterances. null = they end where you commit.
  send('session.update', { session: { input_audio_format: 'pcm', sample_rate: rate } });
  const size = rate / 5; // bytes in a tenth of a second
  for (let at = 0; at < pcm.length && socket.readyState === WebSocket.OPEN; at += size) {
    send('input_audio_buffer.append', { audio: pcm.toString('base64', at, at + size) });
    await sleep(100); // as a microphone would; a file may also be sent as fast as it is read
  }
  send('session.finish'); // what was said is still transcribed; then session.finished comes
});

socket.on('message', (frame) => {
  const event = JSON.parse(frame);
  switch (event.type) {
    case 'conversation.item.input_audio_transcription.text': // text is settled, stash may still change
      show(event.text + event.stash);
      break;
    case 'conversation.item.input_audio_transcription.completed':
      show(`${event.transcript}\n`);
      break;
    case 'conversation.item.input_audio_transcription.failed':
    case 'error':
      console.error(event.error.message);
      break;
    case 'session.finished':
      socket.close(1000);
  }
});

socket.on('error', (error) => {
  console.error(error.message); // such as 401: the key is wrong
  process.exitCode = 1;
});
socket.on('close', (code, reason) => {
  if (code !== 1000) console.error(`closed with ${code} ${reason}`);
});
